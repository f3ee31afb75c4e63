"""Training throughput against peft + transformers.Trainer: same model, data, batch size, steps and optimizer.

    python -m bench.training [--steps 60] [--rounds 3] [--out results/bench]

Each trial is a process of its own. Contenders take turns, so that a slow minute of the machine hits all of them; the
table shows medians. Real tokens are counted: padding is not work done. The share of the GEMM peak is the model's own
arithmetic (forward, and backward to the inputs, of every frozen projection, for real tokens alone) over what the same
processor reaches on a large matrix product in the same precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

SETTINGS = {
    "r": 8,
    "alpha": 16,
    "lr": 1e-3,
    "batch_size": 32,
    "warmup_ratio": 0.06,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
}


class Trial(NamedTuple):
    """What one contender did. `loss` is the mean training loss of the last quarter of the steps."""

    tokens_per_second: float
    peak_memory_bytes: int
    loss: float
    precision: str


class Work(NamedTuple):
    """What every contender is given: a model with the same fresh head, tokenized rows, and the number of steps."""

    model: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    steps: int
    runtime: Any


def prepare(steps: int, precision: str) -> Work:
    """MiniLM-L6 with its own dropout, and as many reviews as `steps` batches hold."""
    import torch

    from experiments import tasks
    from experiments.models import choose_runtime, load_classifier
    from experiments.training import tokenize

    task = {"family": "rotten_tomatoes", "split_seed": 0, "train_examples": steps * SETTINGS["batch_size"]}
    data, runtime = tasks.load(task | {"metric": "accuracy"}), choose_runtime(precision=precision)
    torch.manual_seed(0)
    model, tokenizer = load_classifier({"path": "asset:minilm"}, data, runtime)
    return Work(model, tokenizer, tokenize(data.train, tokenizer, 64), steps, runtime)


def lora_lab(steps: int) -> Trial:
    """This suite's own loop."""
    from experiments import methods
    from experiments.compute import PeakMemory
    from experiments.models import head_modules
    from experiments.training import train

    work = prepare(steps, "auto")
    peak = PeakMemory(work.runtime.device)
    method = {"name": "lora", "r": SETTINGS["r"], "alpha": SETTINGS["alpha"], "weight_types": "q+v"}
    methods.apply(work.model, method, head_modules(work.model))
    history: list[dict[str, Any]] = []
    training = SETTINGS | {"epochs": 1, "schedule": "linear"}
    groups = methods.parameter_groups(work.model, method, [], SETTINGS["lr"])
    settings = (groups, training, ["accuracy"], work.runtime, 64, 0, history)
    trained = train(work.model, work.tokenizer, work.rows, work.rows[:1], *settings, progress=False)
    losses = [row["loss"] for row in history if row["split"] == "train"]
    precision = str(work.runtime.dtype).removeprefix("torch.")
    return Trial(trained.tokens / trained.seconds, peak.read(), statistics.mean(losses[-steps // 4 :]), precision)


def _trainer(steps: int, precision: str, attention: str | None = None, **options: Any) -> Trial:
    """peft + Trainer. What is not in `options` is the Trainer's default, but for what makes it the same work."""
    import peft
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from experiments.compute import PeakMemory

    work = prepare(steps, "fp32")
    peak = PeakMemory(work.runtime.device)
    r, alpha = SETTINGS["r"], SETTINGS["alpha"]
    config = peft.LoraConfig(task_type="SEQ_CLS", r=r, lora_alpha=alpha, target_modules=["query", "value"])
    arguments = TrainingArguments(
        output_dir="unused",
        save_strategy="no",
        disable_tqdm=True,
        max_steps=steps,
        per_device_train_batch_size=SETTINGS["batch_size"],
        learning_rate=SETTINGS["lr"],
        warmup_steps=SETTINGS["warmup_ratio"],
        use_cpu=work.runtime.device.type == "cpu",
        seed=0,
        logging_steps=1,
        bf16=precision == "bf16",
        **options,
    )
    if attention:
        work.model.set_attn_implementation(attention)
    model = peft.get_peft_model(work.model, config)
    collator = DataCollatorWithPadding(work.tokenizer)
    trainer = Trainer(model, arguments, collator, train_dataset=work.rows)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(len(row["input_ids"]) for row in work.rows)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return Trial(
        tokens / seconds, peak.read(), statistics.mean(losses[-steps // 4 :]), str(dtype).removeprefix("torch.")
    )


def trainer_defaults(steps: int) -> Trial:
    """peft + Trainer as they come: fp32, random batches, transformers' default attention."""
    return _trainer(steps, "fp32", attention="sdpa")


def trainer_best(steps: int) -> Trial:
    """peft + Trainer at its best settings here: similar lengths, bf16 where native, the attention that is fast here."""
    from experiments.models import choose_runtime

    precision = "bf16" if "bfloat16" in str(choose_runtime().dtype) else "fp32"
    return _trainer(steps, precision, train_sampling_strategy="group_by_length")


CONTENDERS: dict[str, Callable[[int], Trial]] = {
    "lora-lab": lora_lab,
    "peft + Trainer, best settings": trainer_best,
    "peft + Trainer, defaults": trainer_defaults,
}


def gemm_peak(seconds: float = 1.0) -> float:
    """FLOP/s of a 2048 x 2048 x 2048 product in the precision that lora-lab uses here, the best of many."""
    import torch

    from experiments.models import choose_runtime

    runtime = choose_runtime()
    a = torch.randn(2048, 2048, device=runtime.device, dtype=runtime.dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def flops_per_token() -> float:
    """FLOPs a real token costs in MiniLM-L6's projections: 2 a weight forward, and 2 a weight backward to the input."""
    from torch import nn

    work = prepare(1, "fp32")
    encoder = work.model.get_submodule(f"{work.model.base_model_prefix}.encoder")
    weights = sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
    return 4.0 * weights


def measure(name: str, steps: int) -> Trial:
    """One trial in a new process."""
    command = [sys.executable, "-m", "bench.training", "--trial", name, "--steps", str(steps)]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}  # what experiments.run sets, for all contenders
    output = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if output.returncode:
        raise SystemExit(f"error: {name} failed: {(output.stderr.strip().splitlines() or ['no message'])[-1]}")
    return Trial(**json.loads(output.stdout.splitlines()[-1]))


def main() -> None:
    """Run all contenders in turn, print the table and write it to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    parser.add_argument("--trial", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial:
        print(json.dumps(CONTENDERS[options.trial](options.steps)._asdict()))
        return
    trials: dict[str, list[Trial]] = {name: [] for name in CONTENDERS}
    peaks = []
    for index in range(options.rounds):
        for name in CONTENDERS:
            trials[name].append(measure(name, options.steps))
            print(
                f"round {index + 1}/{options.rounds}: {name}: {trials[name][-1].tokens_per_second:.0f} tokens/s",
                flush=True,
            )
        peaks.append(gemm_peak())
    work, peak = flops_per_token(), max(peaks)
    rows = []
    for name, done in trials.items():
        speed = statistics.median(trial.tokens_per_second for trial in done)
        rows.append(
            {
                "contender": name,
                "precision": done[0].precision,
                "tokens/s": round(speed),
                "lowest": round(min(trial.tokens_per_second for trial in done)),
                "highest": round(max(trial.tokens_per_second for trial in done)),
                "share of GEMM peak": round(speed * work / peak, 3),
                "peak memory, MB": round(max(trial.peak_memory_bytes for trial in done) / 1e6),
                "final loss": round(statistics.mean(trial.loss for trial in done), 3),
            }
        )
    table = pd.DataFrame(rows)
    table.insert(2, "lora-lab is faster by", (table["tokens/s"][0] / table["tokens/s"]).round(2))
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "training.csv", index=False)
    text = table.to_markdown(index=False)
    note = (
        f"MiniLM-L6, Rotten Tomatoes, LoRA r = 8 on q and v, batch 32, {options.steps} steps, {options.rounds} rounds."
        f" Measured GEMM peak {peak / 1e9:.0f} GFLOP/s in {rows[0]['precision']}."
    )
    (options.out / "training.md").write_text(f"{text}\n\n{note}\n")
    print(f"\n{text}\n\n{note}\n{options.out}/training.csv")


if __name__ == "__main__":
    main()
