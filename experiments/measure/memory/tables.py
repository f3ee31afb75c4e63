"""What is planned for the study of memory: tables of methods, of others' figures, and of what fits on a card.

    python -m experiments.measure.memory.tables --preset desk --out results/desk/memory

Writes setups.csv, every plan, and from these plans.csv (the methods), published.csv (LLaMA-Factory's estimates),
paper_figures.csv and fits.csv. A setup that is in setups.csv is not planned again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiments.arguments import Parser, finish
from experiments.csv_schema import Schema
from experiments.measure.memory.contenders import CONTENDERS, Contender, setup, traits
from experiments.measure.memory.fits import CARDS, LENGTHS, RESERVE, Request, fits
from experiments.measure.memory.paper_figures import figures
from experiments.measure.memory.plans import Plans, row
from experiments.measure.memory.published import BATCH, LENGTH, beside
from experiments.measure.memory.schemas import FITS, PAPER_FIGURES, PLANS, PUBLISHED
from experiments.paths import write


class Preset(NamedTuple):
    """Models whose methods are tabled, models and lengths of `fits`, sizes of LLaMA-Factory's table, and methods."""

    methods: tuple[str, ...]
    fits: tuple[str, ...]
    sizes: tuple[str, ...]
    lengths: tuple[int, ...] = LENGTHS
    contenders: tuple[Contender, ...] = CONTENDERS


SIZES = ("7B", "13B", "30B", "70B", "8x7B", "8x22B")
_FEW = tuple(contender for contender in CONTENDERS if contender.title == "LoRA")
_DESK = Preset(("llama-7b", "smollm2"), ("llama-7b", "llama-13b"), SIZES)
PRESETS = {
    "smoke": Preset(("minilm",), ("minilm",), ("7B",), (512,), _FEW),
    "quick": Preset(("llama-7b", "smollm2"), ("llama-7b",), ("7B",), (2048,)),
    "desk": _DESK,
    "paper": _DESK,
}


def _cards(text: str) -> tuple[float, ...]:
    try:
        cards = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        cards = ()
    if not cards or not all(0 < card < 1e6 for card in cards):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of GiB, e.g. 16,24")
    return cards


def _reserve(text: str) -> float:
    try:
        reserve = float(text)
    except ValueError:
        reserve = -1.0
    if not 0 <= reserve < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GiB")
    return reserve


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.measure.memory.tables", description=str(__doc__).splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/PRESET/memory)")
    parser.add_argument(
        "--model", help="one more: a folder, a hub id, or a name as of python -m experiments.measure.memory"
    )
    parser.add_argument("--cards", type=_cards, default=CARDS, help="memory of cards in GiB (default: 16,24,32,80)")
    parser.add_argument("--reserve", type=_reserve, default=RESERVE, help="GiB of a card that no step can have")
    return parser.parse_args(arguments)


def methods(plans: Plans, models: Sequence[str], contenders: Sequence[Contender]) -> pd.DataFrame:
    """A row for each model, method and checkpointing, `title` its name, else as `plans.row`; LENGTH tokens, or as
    many as the model reads.

    Raises InputError as `experiments.measure.memory.planner.plan`.
    """
    rows = []
    for model in models:
        for contender in contenders:
            for checkpointing in (False, True):
                wanted = setup(model, contender, BATCH, min(LENGTH, traits(model).limit), checkpointing)
                rows.append({"title": contender.title} | row(wanted, plans(wanted)))
    return pd.DataFrame(rows)


def make(options: argparse.Namespace) -> None:
    """Plan what setups.csv lacks and write the tables. Raises InputError for a model that cannot be planned."""
    preset = PRESETS[options.preset]
    out = options.out or Path("results") / options.preset / "memory"
    own = (options.model,) if options.model else ()
    plans = Plans(out)
    models = [tuple(dict.fromkeys((*own, *preset_models))) for preset_models in (preset.methods, preset.fits)]
    request = Request(models[1], preset.contenders, preset.lengths, options.cards, options.reserve)
    made: dict[Schema, Callable[[], pd.DataFrame]] = {
        PLANS: lambda: methods(plans, models[0], preset.contenders),
        PUBLISHED: lambda: beside(plans, preset.sizes, preset.contenders),
        PAPER_FIGURES: lambda: figures(plans),
        FITS: lambda: fits(plans, request),
    }
    for schema, table in made.items():
        write(out / schema.file, table()[schema.names].to_csv(index=False))
    print(f"{out}: {', '.join(schema.file for schema in made)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, 2 with one line on stderr if the input cannot work, 130 if it was interrupted."""
    return finish(lambda: make(_options(arguments)))


if __name__ == "__main__":
    sys.exit(main())
