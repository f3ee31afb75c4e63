"""A whole sweep: the quick rank ablation by lora-lab, with workers and without, and by a script of peft + Trainer.

    python -m bench.sweep [--preset quick] [--rounds 2] [--seeds 1] [--out results/bench]

Each trial is a process of its own, from nothing to the scores of all ranks, imports included, into an empty results
folder. Contenders take turns, so that a slow minute of the machine hits all of them; the table shows medians. Cores
kept busy are processor time over wall time, of the process and all its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bench.results import write
from experiments.arguments import Parser, program, whole
from experiments.engines.sizing import cores
from lora.config import InputError

TITLE = (
    "The {preset} rank ablation of MiniLM-L6 on Rotten Tomatoes (r = {ranks}; {seeds} seed{s}), {cores} cores, "
    "{rounds} rounds"
)


class Trial(NamedTuple):
    """Wall time and processor time of a sweep, in seconds."""

    wall: float
    busy: float


def lora_lab(preset: str, seeds: int, *overrides: str) -> list[str]:
    """The command of this suite's sweep; {results} is an empty folder."""
    grid = ["study=rank_ablation", f"preset={preset}", f"seed={','.join(map(str, range(seeds)))}"]
    return [sys.executable, "-m", "experiments.run", *grid, *overrides, "results_dir={results}"]


def peer(preset: str, seeds: int) -> list[str]:
    """The command of the peer's loop, over the same ranks on the same rows, once a seed."""
    config = composed(preset)
    given = {name: config[name] for name in ("model", "task", "training")} | {"threads": cores()}
    return [sys.executable, "-m", "bench.peer_sweep", json.dumps(given), json.dumps(ranks(config) * seeds)]


def composed(preset: str) -> dict[str, Any]:
    """The study's config."""
    with initialize_config_module("experiments.conf", version_base="1.3"):
        study = compose("config", ["study=rank_ablation", f"preset={preset}"])
    config: Any = OmegaConf.to_container(study, resolve=True)
    return {**config, "training": {**config["training"], "lr": float(config["grid"]["lr"])}}


def ranks(config: dict[str, Any]) -> list[int]:
    """The ranks of the grid."""
    return [int(r) for r in str(config["grid"]["r"]).split(",")]


CONTENDERS: dict[str, Callable[[str, int], list[str]]] = {
    "lora-lab, JOBS=auto": lambda preset, seeds: lora_lab(preset, seeds),
    "lora-lab, JOBS=1": lambda preset, seeds: lora_lab(preset, seeds, "engine.jobs=1"),
    "lora-lab, JOBS=1, all cores a run": lambda preset, seeds: lora_lab(
        preset, seeds, "engine.jobs=1", f"runtime.threads={cores()}"
    ),
    "peft + Trainer, a loop": peer,
}


def measure(name: str, preset: str, seeds: int) -> Trial:
    """One sweep. Raises InputError with the last line of what it says if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [part.replace("{results}", folder) for part in CONTENDERS[name](preset, seeds)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # what experiments.run sets, for all contenders
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{name} failed: {said.removeprefix('error: ')}")
    return Trial(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def table(trials: dict[str, list[Trial]], runs: int) -> pd.DataFrame:
    """A row a contender, lora-lab with workers first."""
    rows = []
    for name, done in trials.items():
        wall = statistics.median(trial.wall for trial in done)
        rows.append(
            {
                "contender": name,
                "wall time, s": round(wall, 1),
                "lowest": round(min(trial.wall for trial in done), 1),
                "highest": round(max(trial.wall for trial in done), 1),
                "a run, s": round(wall / runs, 1),
                "cores kept busy": round(statistics.median(trial.busy / trial.wall for trial in done), 2),
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(2, "JOBS=auto is faster by", (frame["wall time, s"] / frame["wall time, s"][0]).round(2))
    return frame


def main(arguments: Sequence[str] | None = None) -> int:
    """Time all contenders and write the table. Returns 0, or 2 with one line on stderr."""
    parser = Parser(prog=program("bench.sweep"), description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("smoke", "quick"), default="quick")
    parser.add_argument("--rounds", type=whole, default=2)
    parser.add_argument("--seeds", type=whole, default=1, help="of each rank (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    try:
        options: argparse.Namespace = parser.parse_args(arguments)
        config = composed(options.preset)
        trials: dict[str, list[Trial]] = {name: [] for name in CONTENDERS}
        for index in range(options.rounds):
            for name, done in trials.items():
                done.append(measure(name, options.preset, options.seeds))
                print(f"round {index + 1}/{options.rounds}: {name}: {done[-1].wall:.0f} s", flush=True)
        note = TITLE.format(
            preset=options.preset, ranks=", ".join(map(str, ranks(config))), seeds=options.seeds,
            s="s" * (options.seeds > 1), cores=cores(), rounds=options.rounds,
        )  # fmt: skip
        write("sweep", table(trials, len(ranks(config)) * options.seeds), f"{note}.", options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
