"""Options that cost nothing in quality, each with what it saves and how much slower a step is.

    python -m experiments.measure.memory.options --preset desk --out results/desk/memory

Full fine-tuning of each model. Writes options.csv, a row a model, option and round, and machine.json; `peak` is the
same in all rounds of an option. A model that is there with all of its rounds is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from experiments.arguments import finish
from experiments.measure.memory.grid import MODELS, usual
from experiments.measure.memory.peaks import parser
from experiments.measure.memory.schemas import OPTIONS
from experiments.measure.results import Results

ROUNDS = {"smoke": 2, "quick": 5, "desk": 8, "paper": 20}


def measure(options: argparse.Namespace) -> None:
    """Measure the models that the folder lacks. Raises InputError as `experiments.measure.memory.peaks.measure`."""
    from experiments.measure import machine
    from experiments.measure.memory import option_steps  # torch: seconds that a wrong option should not cost
    from experiments.measure.memory.measured_step import in_children
    from experiments.models import choose_runtime

    out, rounds = options.out or Path("results") / options.preset / "memory", ROUNDS[options.preset]
    runtime = choose_runtime(options.device, options.precision)
    models = (options.model,) if options.model else MODELS[options.preset]
    machine.claim(out, runtime)
    results = Results(out, OPTIONS)
    setups = [usual(model, runtime) for model in models]
    stored = results.keys("model", "option")
    missing = [
        setup
        for setup in setups
        if any(stored.count((setup.model["name"], option)) < rounds for option in option_steps.VARIANTS)
    ]
    print(f"{results.path}: {len(setups)} models, {len(setups) - len(missing)} of them stored")
    for setup in tqdm(missing, unit="model", disable=None):
        names = list(option_steps.VARIANTS)
        peaks = dict(zip(names, in_children(option_steps.peak, [(setup, name) for name in names]), strict=True))
        own = {"model": setup.model["name"], "batch": setup.batch, "length": setup.length, "precision": setup.precision}
        (timed,) = in_children(option_steps.seconds, [(setup, rounds)])
        results.add([own | row._asdict() | {"peak": peaks[row.option]} for row in timed], "model")
        machine.claim(out, runtime)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    return finish(lambda: measure(parser("options", str(__doc__).splitlines()[0]).parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
