"""Where a run's time goes: processor seconds of each phase of quick runs, of a worker's first run and of its next.

    python -m bench.phases [--run minilm text2sql] [--e2e FOLDER] [--out results/bench]

Two seeds of a run are computed one after the other in a process of their own, on one thread, as in a worker of a sweep.
Seconds are those of the processor: they do not count when other work on the machine makes a run wait.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bench.phase_clock import REST, START
from bench.results import write
from experiments.arguments import Parser, program
from lora.config import InputError

WHOLE = "the whole run"
TITLES = {
    "minilm": "MiniLM-L6, Rotten Tomatoes",
    "text2sql": "SmolLM2-135M, text2sql",
    "e2e": "SmolLM2-135M, E2E",
}
SETTINGS = {
    "minilm": ["study=rank_ablation", "model=minilm", "task=rotten_tomatoes", "method.r=8", "training.lr=3e-3"],
    "text2sql": ["study=table4", "model=smollm2", "task=text2sql", "method.r=8", "training.lr=3e-3"],
    "e2e": ["study=table3", "model=smollm2", "task=e2e", "method.r=4", "method.alpha=32", "training.lr=3e-3"],
}
NOTE = (
    "Processor seconds of LoRA runs with the quick preset, on one thread: the first run of a worker and its next, of "
    "another seed, and the shares of their phases. `train` is without validation, `evaluate test` without what is "
    "written and how it is scored."
)


def configs(name: str, e2e: Path | None, results: str) -> list[dict[str, Any]]:
    """The resolved configs of both runs; e2e: the folder of its data, None: the hub."""
    places = [f"results_dir={results}", *([f"task.data_dir={e2e.absolute()}"] if e2e and name == "e2e" else [])]
    found = []
    with initialize_config_module("experiments.conf", version_base="1.3"):
        for seed in (0, 1):
            chosen = [*SETTINGS[name], *places, "preset=quick", f"seed={seed}", "runtime.threads=1"]
            found.append(OmegaConf.to_container(compose("config", chosen), resolve=True))
    return found  # type: ignore[return-value]


def measure(name: str, e2e: Path | None) -> list[dict[str, float]]:
    """{phase: seconds} of both runs. Raises InputError with the last line of what is said if they fail."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.phase_clock", json.dumps(configs(name, e2e, folder))]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")  # as a worker's
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{name} failed: {said.removeprefix('error: ')}")
    return [json.loads(line) for line in done.stdout.splitlines()[-2:]]


def table(found: dict[str, list[dict[str, float]]]) -> pd.DataFrame:
    """A row a phase of each run, as they follow each other in its first, and their sum."""
    rows = []
    for name, runs in found.items():
        inner = [phase for phase in runs[0] if phase not in (START, REST)]
        for phase in (START, *inner, REST, WHOLE):
            row: dict[str, Any] = {"run": TITLES[name], "phase": phase}
            for which, seconds in zip(("first", "next"), runs, strict=True):
                whole = sum(seconds.values())
                part = whole if phase == WHOLE else seconds.get(phase, 0.0)
                row |= {f"{which} run, s": round(part, 2), f"share of the {which}": round(part / whole, 3)}
            rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the runs and write the table. Returns 0, or 2 with one line on stderr."""
    parser = Parser(prog=program("bench.phases"), description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="+", choices=TITLES, help="default: minilm and text2sql; with --e2e, all")
    parser.add_argument("--e2e", type=Path, metavar="FOLDER", help="of E2E's files (default: the hub)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    try:
        options: argparse.Namespace = parser.parse_args(arguments)
        found = {}
        for name in options.run or [name for name in TITLES if name != "e2e" or options.e2e]:
            found[name] = measure(name, options.e2e)
            print(f"{name}: {' and '.join(f'{sum(run.values()):.0f} s' for run in found[name])}", flush=True)
        write("phases", table(found), NOTE, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
