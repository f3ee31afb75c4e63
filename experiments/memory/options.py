"""Options that cost nothing in quality, each with what it saves and how much slower a step is.

    python -m experiments.memory.options --preset desk --out results/desk/memory

Full fine-tuning of each model. Writes options.csv, a row a model, option and round, and machine.json; `peak` is the
same in all rounds of an option. A model that is there with all of its rounds is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from experiments.measured import Results, finish
from experiments.memory.grid import MODELS, usual
from experiments.memory.steps import parser

ROUNDS = {"smoke": 2, "quick": 5, "desk": 8, "paper": 20}
COLUMNS: dict[str, type] = {
    "model": str, "batch": int, "length": int, "precision": str, "option": str, "round": int, "seconds": float,
    "peak": int,
}  # fmt: skip


def measure(options: argparse.Namespace) -> None:
    """Measure the models that the folder lacks. Raises InputError as `experiments.memory.steps.measure`."""
    from experiments.memory import machine, variants  # torch: seconds that a wrong option should not cost
    from experiments.memory.measure import in_children
    from experiments.models import choose_runtime

    out, rounds = options.out or Path("results") / options.preset / "memory", ROUNDS[options.preset]
    runtime = choose_runtime(options.device, options.precision)
    models = (options.model,) if options.model else MODELS[options.preset]
    machine.claim(out, runtime)
    results = Results(out / "options.csv", COLUMNS)
    setups = [usual(model, runtime) for model in models]
    stored = results.keys("model", "option")
    missing = [
        setup
        for setup in setups
        if any(stored.count((setup.model["name"], option)) < rounds for option in variants.VARIANTS)
    ]
    print(f"{results.path}: {len(setups)} models, {len(setups) - len(missing)} of them stored")
    for setup in tqdm(missing, unit="model", disable=None):
        names = list(variants.VARIANTS)
        peaks = dict(zip(names, in_children(variants.peak, [(setup, name) for name in names]), strict=True))
        own = {"model": setup.model["name"], "batch": setup.batch, "length": setup.length, "precision": setup.precision}
        (timed,) = in_children(variants.seconds, [(setup, rounds)])
        results.add([own | row._asdict() | {"peak": peaks[row.option]} for row in timed], "model")
        machine.claim(out, runtime)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `measured.finish`."""
    return finish(lambda: measure(parser("options", str(__doc__).splitlines()[0]).parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
