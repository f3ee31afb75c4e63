"""Latency of one forward pass: the base model, LoRA merged and unmerged, and adapters (paper, Table 1 and Figure 5).

    python -m experiments.measure.latency --preset desk --out results/desk/latency

Writes trials.csv, a row a timed pass, and machine.json, what it was measured on. A cell (model, batch, length) is
written when it is complete; one that is there is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from experiments.arguments import Parser, finish, whole
from experiments.measure import machine
from experiments.measure.results import Results
from experiments.measure.schemas import TRIALS
from experiments.paths import write

if TYPE_CHECKING:
    from experiments.measure import forward_pass

BATCHES, LENGTHS, BOTTLENECKS = (1, 2, 4, 8, 16, 32), (128, 256, 512), (10, 100, 250)
CELL = ["model", "batch", "length"]
Cell = tuple[str, int, int]


class Preset(NamedTuple):
    """The grid, the counted rounds (at least, at most, seconds a cell, warm-up), and the largest pass in tokens by
    model (default: no limit)."""

    models: tuple[str, ...]
    rounds: tuple[int, int, float, int]
    batches: tuple[int, ...] = BATCHES
    lengths: tuple[int, ...] = LENGTHS
    bottlenecks: tuple[int, ...] = BOTTLENECKS
    largest: Mapping[str, int] = {}


MODELS = ("gpt2-medium", "smollm2-135m")
PRESETS = {
    "smoke": Preset(("tiny",), (3, 3, 0, 1), (1, 2), (16, 32), (2, 4)),
    "quick": Preset(("gpt2-medium",), (5, 10, 30, 1), (1, 4), (128, 256)),
    "desk": Preset(MODELS, (5, 15, 30, 1), largest={"gpt2-medium": 512, "smollm2-135m": 1024}),
    "paper": Preset(MODELS, (100, 100, 0, 3)),
}


def _list(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(whole(part.strip()) for part in text.split(",")))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m experiments.measure.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--out", type=Path, help="folder of the results (default: results/PRESET/latency)")
    parser.add_argument("--model", help="gpt2-medium, smollm2-135m, or a folder or hub id with a config.json")
    parser.add_argument("--batches", type=_list, help="e.g. 1,4,16")
    parser.add_argument("--lengths", type=_list, help="tokens in a row, e.g. 128,512")
    parser.add_argument("--bottlenecks", type=_list, help="of the adapters, e.g. 10,100,250")
    parser.add_argument("--rounds", type=whole, help="counted passes of each contender in a cell")
    parser.add_argument("--threads", type=whole, help="default: torch's own")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=0, help="of the order of contenders, and of the tokens")
    return parser.parse_args(arguments)


def plan(options: argparse.Namespace) -> tuple[list[Cell], list[Cell]]:
    """The cells to measure, small ones first, and those that the preset leaves out because they would take too long.

    A model, batch or length that the user named is never left out.
    """
    preset = PRESETS[options.preset]
    models = (options.model,) if options.model else preset.models
    batches, lengths = options.batches or preset.batches, options.lengths or preset.lengths
    chosen = options.batches or options.lengths
    cells, left_out = list[Cell](), list[Cell]()
    for model in models:
        limit = preset.largest.get(model)
        for batch, length in sorted(((b, n) for b in batches for n in lengths), key=lambda cell: cell[0] * cell[1]):
            fits = chosen or limit is None or batch * length <= limit
            (cells if fits else left_out).append((model, batch, length))
    return cells, left_out


def _of(cell: Cell, trials: pd.DataFrame) -> pd.Series:
    return (trials[CELL] == list(cell)).all(axis=1)


def is_done(cell: Cell, trials: pd.DataFrame, bottlenecks: Sequence[int], rounds: int) -> bool:
    """True if the cell holds at least `rounds` rounds, with adapters of each of the bottlenecks."""
    rows = trials[_of(cell, trials)]
    return rows["round"].nunique() >= rounds and set(bottlenecks) <= set(rows["bottleneck"])


def measure(options: argparse.Namespace, out: Path) -> None:
    """Measure the cells that `out` lacks.

    Raises InputError for settings that do not work here, or that differ from those of the cells in `out`.
    """
    preset = PRESETS[options.preset]
    bottlenecks = options.bottlenecks or preset.bottlenecks
    limits = (options.rounds, options.rounds, 0.0, preset.rounds[3]) if options.rounds else preset.rounds
    planned, left_out = plan(options)
    trials = Results(out, TRIALS).rows
    stored = {} if trials.empty else machine.read(out)
    if stored:
        given = {name: getattr(options, name) for name in ("device", "precision", "threads")}
        machine.refuse_others(stored, {name: own for name, own in given.items() if own not in ("auto", None)}, out)
    missing = [cell for cell in planned if not is_done(cell, trials, bottlenecks, limits[0])]
    print(f"{out}: {len(planned)} cells, {len(planned) - len(missing)} of them stored")
    if not missing:
        return

    from experiments import models  # torch: seconds that stored results do not need
    from experiments.measure import forward_pass

    runtime = models.choose_runtime(options.device, options.precision, options.threads)
    facts = machine.here(runtime)
    if stored:
        machine.refuse_others(stored, facts, out)
    stored.setdefault("started", machine.now())
    facts["lora"] = f"r = {forward_pass.LORA.r} on {'+'.join(forward_pass.LORA.weight_types)}"
    skipped = {tuple(cell) for cell in stored.get("left_out", [])} | set(left_out)
    out.mkdir(parents=True, exist_ok=True)
    competing: list[forward_pass.Contender] = []
    with tqdm(total=len(missing), unit="cell", disable=None) as bar:
        for model, cells in itertools.groupby(missing, key=lambda cell: cell[0]):
            competing.clear()  # the last model goes before the next is made
            competing += forward_pass.contenders(forward_pass.build(model, runtime), bottlenecks)
            tokens = {cell: forward_pass.inputs(competing[0].model, *cell[1:], options.seed) for cell in cells}
            for cell, rows in tokens.items():
                bar.set_description("{} {} x {}".format(*cell))
                timed = forward_pass.trials(competing, rows, forward_pass.Rounds(*limits), options.seed)
                trials = _with(trials, cell, timed)
                measured = set(trials[CELL].itertuples(index=False, name=None))
                machine.keep(out, {**facts, "left_out": sorted(skipped - measured)}, stored)
                write(out / TRIALS.file, trials.to_csv(index=False, float_format="%.6g"))
                bar.update()


def _with(trials: pd.DataFrame, cell: Cell, timed: Iterable[forward_pass.Trial]) -> pd.DataFrame:
    rows = [(*cell, who.name, who.bottleneck, who.added, index, seconds) for who, index, seconds in timed]
    others = trials[~_of(cell, trials)].itertuples(index=False, name=None)
    return pd.DataFrame([*others, *rows], columns=TRIALS.names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""

    def begin() -> None:
        options = _options(arguments)
        measure(options, options.out or Path("results") / options.preset / "latency")

    return finish(begin)


if __name__ == "__main__":
    sys.exit(main())
