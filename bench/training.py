"""Training throughput against peft + transformers.Trainer: same model, data, batch size, steps and optimizer.

    python -m bench.training [--model minilm smollm2] [--steps 60] [--rounds 3] [--out results/bench]

Each trial is a process of its own. Contenders take turns, so that a slow minute of the machine hits all of them; the
table shows medians. Real tokens are counted: padding is not work done. The share of the GEMM peak is the model's own
arithmetic (forward, and backward to the inputs, of every frozen projection, for real tokens alone) over what the same
processor reaches on a large matrix product in the precision that lora-lab uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from bench.contenders import CONTENDERS, WORKLOADS, Trial
from bench.results import write
from experiments.arguments import Parser
from experiments.models import Runtime, choose_runtime
from lora.config import InputError

SIDE = 2048  # of the square matrices whose product is timed


def gemm_peak(runtime: Runtime, seconds: float = 1.0) -> float:
    """FLOP/s of a product of two SIDE x SIDE matrices, the best of as many as fit into `seconds`."""
    a = torch.randn(SIDE, SIDE, device=runtime.device).to(runtime.dtype)
    product = torch.empty_like(a)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, a, out=product)
        product[0, 0].item()  # waits until a GPU is done
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best


def measure(model: str, contender: str, steps: int) -> Trial:
    """One trial in a new process. Raises InputError with the last line of what it says if it fails."""
    command = [sys.executable, "-m", "bench.training", "--model", model, "--trial", contender, "--steps", str(steps)]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # what experiments.run sets, for all contenders
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if output.returncode:
        said = (output.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{contender} failed on {model}: {said.removeprefix('error: ')}")
    return Trial(**json.loads(output.stdout.splitlines()[-1]))


def compare(model: str, steps: int, rounds: int) -> tuple[dict[str, list[Trial]], float]:
    """The trials of each contender, and the best GEMM peak measured between rounds, in FLOP/s."""
    trials: dict[str, list[Trial]] = {name: [] for name in CONTENDERS}
    peaks = []
    for index in range(rounds):
        for name in CONTENDERS:
            trials[name].append(measure(model, name, steps))
            speed = trials[name][-1].tokens_per_second
            print(f"{model}, round {index + 1}/{rounds}: {name}: {speed:.0f} tokens/s", flush=True)
        peaks.append(gemm_peak(choose_runtime()))
    return trials, max(peaks)


def table(trials: dict[str, list[Trial]], flops_per_token: float, peak: float) -> pd.DataFrame:
    """A row a contender, lora-lab first. `flops_per_token` and `peak` (FLOP/s) make the share of the GEMM peak."""
    rows = []
    for name, done in trials.items():
        speeds = [trial.tokens_per_second for trial in done]
        rows.append(
            {
                "contender": name,
                "precision": done[0].precision,
                "tokens/s": round(statistics.median(speeds)),
                "lowest": round(min(speeds)),
                "highest": round(max(speeds)),
                "share of GEMM peak": round(statistics.median(speeds) * flops_per_token / peak, 3),
                "peak memory, MB": round(max(trial.peak_memory_bytes for trial in done) / 1e6),
                "validation loss": round(statistics.mean(trial.loss for trial in done), 3),
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(2, "lora-lab is faster by", (frame["tokens/s"][0] / frame["tokens/s"]).round(2))
    return frame


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="default: all")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--trial", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in ("steps", "rounds"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} must be 1 or more; got {getattr(options, name)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Time all contenders on each model and write its table. Returns 0, or 2 with one line on stderr."""
    try:
        options = _options(arguments)
        if options.trial:
            print(json.dumps(CONTENDERS[options.trial](WORKLOADS[options.model[0]], options.steps)._asdict()))
            return 0
        for model in options.model:
            work = WORKLOADS[model]
            problem = work.problem(work.config(options.steps))
            flops = work.flops_per_token(problem.model, problem.rows["train"])
            del problem
            trials, peak = compare(model, options.steps, options.rounds)
            frame = table(trials, flops, peak)
            note = (
                f"{work.title}, {options.steps} steps, {options.rounds} rounds. {flops / 1e6:.0f} MFLOP a real token; "
                f"measured GEMM peak {peak / 1e9:.0f} GFLOP/s in {frame['precision'][0]}."
            )
            write(work.file, frame, note, options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
