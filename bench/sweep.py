"""Whole sweeps over LoRA's rank: by lora-lab, with workers and without, and by a script of peft + Trainer.

    python -m bench.sweep [--run minilm text2sql] [--preset quick] [--rounds 2] [--seeds 1] [--out results/bench]

Each trial is a process of its own, from nothing to the scores of all ranks, imports included, into an empty results
folder. Contenders take turns, so that a slow minute of the machine hits all of them; the table shows medians. Cores
kept busy are processor time over wall time, of the process and all its workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from bench.phases import TITLES
from bench.results import write
from experiments import processor
from experiments.arguments import Parser, program, whole
from experiments.engines.sizing import cores
from experiments.models import choose_runtime
from lora.config import InputError

SETTINGS = {  # of a sweep but for its ranks, as on the command line of experiments.run
    "minilm": ["study=rank_ablation", "model=minilm", "task=rotten_tomatoes", "training.lr=3e-3"],
    "text2sql": [
        "study=table4", "model=smollm2", "task=text2sql", "training.lr=3e-3",
        'hydra.sweeper.points=["method=lora"]',  # in place of the table's methods
    ],
}  # fmt: skip
RANKS = {
    "minilm": {"smoke": [1, 2], "quick": [1, 2, 4, 8, 16, 32, 64]},
    "text2sql": {"smoke": [1, 4], "quick": [1, 4, 16, 64]},
}
NOTE = (
    "Sweeps over the rank r of LoRA on q and v with the {preset} preset, {seeds} seed{s} of each rank: {grids}. A run "
    "trains, validates after each epoch and tests; a language model also writes the texts of the test split, which are "
    "scored. {cores} cores of {processor}, in {precision}; medians of {rounds} round{rounds_s}."
)


class Trial(NamedTuple):
    """Wall time and processor time of a sweep, in seconds."""

    wall: float
    busy: float


def lora_lab(name: str, preset: str, seeds: int, *overrides: str) -> list[str]:
    """The command of this suite's sweep; {results} is an empty folder."""
    grid = [f"method.r={joined(RANKS[name][preset])}", f"seed={joined(range(seeds))}", f"preset={preset}"]
    return [sys.executable, "-m", "experiments.run", *SETTINGS[name], *grid, *overrides, "results_dir={results}"]


def peer(name: str, preset: str, seeds: int) -> list[str]:
    """The command of the peer's loop, over the same ranks on the same rows, once a seed."""
    given = composed(name, preset) | {"threads": cores()}
    return [sys.executable, "-m", "bench.peer_sweep", json.dumps(given), json.dumps(RANKS[name][preset] * seeds)]


def composed(name: str, preset: str) -> dict[str, Any]:
    """What the config of the sweep's runs says, but for their ranks and seeds."""
    with initialize_config_module("experiments.conf", version_base="1.3"):
        study = compose("config", [*SETTINGS[name], f"preset={preset}"])
    config: Any = OmegaConf.to_container(study, resolve=True)
    return {group: config[group] for group in ("model", "task", "method", "training", "runtime")}


def joined(values: Iterable[int], comma: str = ",") -> str:
    """Values as Hydra takes them."""
    return comma.join(map(str, values))


CONTENDERS: dict[str, Callable[[str, str, int], list[str]]] = {
    "lora-lab, JOBS=auto": lora_lab,
    "lora-lab, JOBS=1": lambda *sweep: lora_lab(*sweep, "engine.jobs=1"),
    "lora-lab, JOBS=1, all cores a run": lambda *sweep: lora_lab(*sweep, "engine.jobs=1", f"runtime.threads={cores()}"),
    "peft + Trainer, a loop": peer,
}


def measure(contender: str, name: str, preset: str, seeds: int) -> Trial:
    """One sweep. Raises InputError with the last line of what it says if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        command = [part.replace("{results}", folder) for part in CONTENDERS[contender](name, preset, seeds)]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # what experiments.run sets, for all contenders
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{contender} failed: {said.removeprefix('error: ')}")
    return Trial(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def table(trials: dict[tuple[str, str], list[Trial]], runs: dict[str, int]) -> pd.DataFrame:
    """A row a contender of each sweep, lora-lab with workers first; runs: how many each sweep has."""
    rows, first = [], next(iter(CONTENDERS))
    medians = {place: statistics.median(trial.wall for trial in done) for place, done in trials.items()}
    for (name, contender), done in trials.items():
        wall = medians[name, contender]
        rows.append(
            {
                "run": TITLES[name],
                "contender": contender,
                "wall time, s": round(wall, 1),
                "JOBS=auto is faster by": round(wall / medians[name, first], 2),
                "lowest": round(min(trial.wall for trial in done), 1),
                "highest": round(max(trial.wall for trial in done), 1),
                "a run, s": round(wall / runs[name], 1),
                "cores kept busy": round(statistics.median(trial.busy / trial.wall for trial in done), 2),
            }
        )
    return pd.DataFrame(rows)


def note(names: Sequence[str], preset: str, seeds: int, rounds: int) -> str:
    """What was timed, and where."""
    runtime = choose_runtime()
    return NOTE.format(
        preset=preset, seeds=seeds, s="s" * (seeds > 1), cores=cores(), processor=processor.kind(runtime.device),
        grids="; ".join(f"{TITLES[name]}, r = {joined(RANKS[name][preset], ', ')}" for name in names),
        precision=str(runtime.dtype).removeprefix("torch."), rounds=rounds, rounds_s="s" * (rounds > 1),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Time all contenders and write the table. Returns 0, or 2 with one line on stderr."""
    parser = Parser(prog=program("bench.sweep"), description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="default: both")
    parser.add_argument("--preset", choices=("smoke", "quick"), default="quick")
    parser.add_argument("--rounds", type=whole, default=2)
    parser.add_argument("--seeds", type=whole, default=1, help="of each rank (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    try:
        options: argparse.Namespace = parser.parse_args(arguments)
        preset, seeds = options.preset, options.seeds
        names = list(dict.fromkeys(options.run))
        trials: dict[tuple[str, str], list[Trial]] = {place: [] for place in itertools.product(names, CONTENDERS)}
        for index in range(options.rounds):
            for (name, contender), done in trials.items():
                done.append(measure(contender, name, preset, seeds))
                print(f"round {index + 1}/{options.rounds}: {name}, {contender}: {done[-1].wall:.0f} s", flush=True)
        runs = {name: len(RANKS[name][preset]) * seeds for name in names}
        write("sweep", table(trials, runs), note(names, preset, seeds, options.rounds), options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
