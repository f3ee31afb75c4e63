"""Training steps measured, each beside its plan.

    python -m experiments.measure.memory.peaks --preset desk --out results/desk/memory

Writes measured.csv, a row a setup, and machine.json. A setup that is there is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from experiments.arguments import Parser, finish
from experiments.measure.memory import plans
from experiments.measure.memory.grid import MODELS, setups
from experiments.measure.memory.schemas import MEASURED
from experiments.measure.memory.units import KINDS
from experiments.measure.results import Results

PREDICTED = {f"predicted_{name}": name for name in (*KINDS, "peak")}


def parser(module: str, description: str) -> Parser:
    """The command line of what is measured here."""
    made = Parser(prog=f"python -m experiments.measure.memory.{module}", description=description)
    made.add_argument("--preset", choices=MODELS, default="quick")
    made.add_argument("--out", type=Path, help="folder of the results (default: results/PRESET/memory)")
    made.add_argument("--model", help="in place of the preset's: a folder, a hub id, or smollm2, gpt2_medium, …")
    made.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    made.add_argument("--device", default="auto", help="cpu or cuda")
    return made


def measure(options: argparse.Namespace) -> None:
    """Measure the setups that the folder lacks.

    Raises InputError for a model or settings that do not work here, and for results of another machine.
    """
    from experiments.measure import machine
    from experiments.measure.memory import measured_step  # torch: seconds that a wrong option should not cost
    from experiments.measure.memory.planner import plan
    from experiments.models import choose_runtime

    out = options.out or Path("results") / options.preset / "memory"
    runtime = choose_runtime(options.device, options.precision)
    models = (options.model,) if options.model else MODELS[options.preset]
    wanted = {plans.identity(setup): setup for setup in setups(options.preset, models, runtime)}
    machine.claim(out, runtime)
    results = Results(out, MEASURED)
    stored = {key for (key,) in results.keys("setup")}
    missing = [setup for key, setup in wanted.items() if key not in stored]
    print(f"{results.path}: {len(wanted)} setups, {len(wanted) - len(missing)} of them stored")
    found = tqdm(
        measured_step.in_children(measured_step.measure, missing), total=len(missing), unit="setup", disable=None
    )
    for setup, (allocated, resident, before) in zip(missing, found, strict=True):
        row = plans.row(setup, plan(setup))
        row |= {name: row[kind] for name, kind in PREDICTED.items()}
        row |= {"measured_peak": allocated, "resident_peak": resident, "resident_before": before}
        results.add([row | {"ratio": row["predicted_peak"] / allocated}])
        machine.claim(out, runtime)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    return finish(lambda: measure(parser("peaks", str(__doc__).splitlines()[0]).parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
