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

from experiments import methods, metrics, tasks
from experiments.evaluation import batches, evaluate
from experiments.models import choose_runtime, head_modules, load_classifier
from experiments.training import tokenize, train
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

    The test split is read once, after training. Raises InputError for bad settings or a loss that is not finite, with
    history.csv written all the same.
    """
    run, task = config["runtime"], config["task"]
    runtime = choose_runtime(run["device"], run["precision"], run["threads"])
    metrics.load(task["metric"])  # a mistyped metric is found before training, not after
    data = tasks.load(task)
    peak = PeakMemory(runtime.device)
    torch.manual_seed(config["seed"])
    model, tokenizer = load_classifier(config["model"], data, runtime)
    length = min(task["max_length"], max(1, methods.room(model, config["method"])))
    splits = {name: tokenize(getattr(data, name), tokenizer, length) for name in ("train", "validation", "test")}

    heads, training = head_modules(model), config["training"]

    def backward() -> None:
        for batch in batches(splits["train"][:CALIBRATION], tokenizer, training["batch_size"]):
            with runtime.autocast:
                loss = model(**batch.to(runtime.device)).loss
            loss.backward()

    methods.apply(model, config["method"], heads, backward)
    groups = methods.parameter_groups(model, config["method"], heads, training["lr"], training["head_lr"])
    history: list[dict[str, Any]] = []
    scoring = ((data.metric, *data.more_metrics), runtime, run["eval_batch_size"])
    try:
        trained = train(
            model,
            tokenizer,
            splits["train"],
            splits["validation"],
            groups,
            training,
            *scoring,
            config["seed"],
            history,
        )
    finally:
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(history)
    scores = {"validation": trained.validation, "test": evaluate(model, tokenizer, splits["test"], *scoring)}
    io.save(model, folder / "adapter")
    results = {
        "trainable_params": sum(parameter.numel() for parameter in trainable_parameters(model).values()),
        "total_params": sum(parameter.numel() for parameter in model.parameters()),
        "train_examples": len(splits["train"]),
        "train_seconds": trained.seconds,
        "tokens_per_second": trained.tokens / trained.seconds,
        "peak_memory_bytes": peak.read(),
        "main_metric": data.metric,
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
