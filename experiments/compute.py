"""Compute one run: load, adapt, train, evaluate, and write its folder. The only place that trains."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import datetime
import gc
import json
import platform
import resource
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments import methods, tasks
from experiments import problem as problems
from experiments.models import choose_runtime
from experiments.training import train
from lora import io
from lora.inject import trainable_parameters

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy")
CALIBRATION = 64  # training examples from which a method that starts from gradients may take them
COLUMNS = ("step", "epoch", "split", "loss", "lr", "tokens", "metric")


class PeakMemory:
    """Peak memory in bytes since it was made: allocated memory on CUDA, the process's resident size elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif sys.platform == "linux":
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # other C libraries than glibc have no malloc_trim
                ctypes.CDLL(None).malloc_trim(0)  # what an earlier run in this process has freed is not this one's
            with contextlib.suppress(OSError):  # some containers mount /proc read-only
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)

    def read(self) -> int:
        """Bytes. Where the system cannot reset it (macOS, a read-only /proc) it is the peak of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if sys.platform == "linux":
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compute(config: Mapping[str, Any], folder: Path) -> None:
    """Train and evaluate what `config` says, write history.csv, adapter/ and metrics.json to `folder`.

    Where the model writes text, predictions.jsonl has what it wrote for each input of the test split.

    The test split is read once, after training. Raises InputError for bad settings or a loss that is not finite, with
    history.csv written all the same.
    """
    run, training = config["runtime"], config["training"]
    runtime = choose_runtime(run["device"], run["precision"], run["threads"])
    data = tasks.load(config["task"])
    peak = PeakMemory(runtime.device)
    torch.manual_seed(config["seed"])
    problem = problems.load(config, data, runtime)
    model, method, heads = problem.model, config["method"], problem.heads

    def backward() -> None:
        problem.backward(problem.rows["train"][:CALIBRATION], training["batch_size"])

    methods.apply(model, method, heads, backward)
    groups = methods.parameter_groups(model, method, heads, training["lr"], training["head_lr"])
    history: list[dict[str, Any]] = []
    try:
        trained = train(problem, groups, training, config["seed"], history)
    finally:
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(history)
    test = problem.evaluate("test")
    scores = {"validation": trained.validation, "test": test.scores}
    if test.outputs:
        with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(output, ensure_ascii=False) + "\n" for output in test.outputs)
    io.save(model, folder / "adapter")
    results = {
        "trainable_params": sum(parameter.numel() for parameter in trainable_parameters(model).values()),
        "total_params": sum(parameter.numel() for parameter in model.parameters()),
        "train_examples": len(problem.rows["train"]),
        "train_seconds": trained.seconds,
        "tokens_per_second": trained.tokens / trained.seconds if groups else None,
        "peak_memory_bytes": peak.read(),
        "main_metric": problem.metric,
        "validation_metric": problem.validation_metric,
        "metrics": [
            {"split": split, "metric": metric, "value": value}
            for split, values in scores.items()
            for metric, value in values.items()
        ],
        "precision": str(runtime.dtype).removeprefix("torch."),
        "device": str(runtime.device),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor(),
            "threads": torch.get_num_threads(),
        },
        "versions": {package: version(package) for package in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    (folder / "metrics.json").write_text(json.dumps(results, indent=1))
