"""Compute one run: load, adapt, train, evaluate, and write its folder. The only place that trains."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import json
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import PreTrainedModel

from experiments import (
    compiling,
    header,
    items,
    methods,
    offload,
    parallel,
    problems,
    processor,
    quantization,
    tasks,
    trackers,
    warm_start,
)
from experiments.checkpoint import Checkpoint
from experiments.config import RunConfig
from experiments.history import History
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from experiments.store import RECIPE, definition, run_id, store_of
from experiments.training import train
from lora import io
from lora.config import InputError
from lora.model import trainable_parameters

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "numpy")
CALIBRATION = 64  # training examples from which a method that starts from gradients may take them


class PeakMemory:
    """Peak memory in bytes since it was made: allocated memory on CUDA, the process's resident size elsewhere.

    `before` is what was held when it was made, 0 where the system does not say.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        elif sys.platform == "linux":
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # other C libraries than glibc have no malloc_trim
                ctypes.CDLL(None).malloc_trim(0)  # what an earlier run in this process has freed is not this one's
            with contextlib.suppress(OSError):  # some containers mount /proc read-only
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
            self.before = _status("VmRSS")

    def read(self) -> int:
        """Bytes. Where the system cannot reset it (macOS, a read-only /proc) it is the peak of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if sys.platform == "linux":
            return _status("VmHWM")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(field: str) -> int:
    """A size of this process in bytes, of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def checkpoint_activations(model: PreTrainedModel, to_the_end: bool = False) -> None:
    """Let the layers of `model` compute their activations again in the backward pass, with the same random numbers,
    while it trains; evaluation and generation stay as they are. Raises InputError for a model that cannot.

    A layer stops where its last activation is known, unless it is to go on `to_the_end`, as one must whose modules put
    weights away behind them."""
    try:
        model.activation_checkpointing_enable({"use_reentrant": False, "early_stop": not to_the_end})
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"runtime.checkpointing = true is not possible: {reason}; set it to false") from error
    # transformers asks for gradients of the embeddings too, for reentrant checkpoints: frozen layers would need them.
    model.disable_input_require_grads()


def compute(config: RunConfig, folder: Path, tracker: trackers.Tracker | None = None) -> None:
    """Train and evaluate what `config` says, write to `folder` history.csv, adapter/ (see
    `keeps_weights`) and metrics.json; a `tracker` is told the rows and the scores.

    items.json has what became of each item of the test split. Where the model writes text, predictions.jsonl has what
    it wrote for each.

    The test split is read once, after training, or with `task.test_examples=0` not at all. Raises InputError for bad
    settings or a loss that is not finite, with history.csv written as far as it came. With `runtime.checkpoint_every`
    it goes on where a killed try was.
    """
    run, training = config.runtime, config.training
    started = time.perf_counter()
    with parallel.agreed():
        runtime = choose_runtime(run.device, run.precision, run.threads)
        room = offload.room(config, runtime.device)
        runtime = runtime._replace(sharded=run.parallel == "fsdp" or room is not None)
        data = tasks.load(config.task)
        if parallel.rank() == 0:
            header.note(config, data)
        peak = PeakMemory(runtime.device)
        torch.manual_seed(config.seed)
        problem = problems.load(config, data, runtime)
        model, method, heads = problem.model, config.method, problem.heads

        def backward() -> None:
            problem.backward(problem.rows["train"][:CALIBRATION], training.batch_size)

        methods.apply(model, method, heads, backward)
        if config.task.get("start_from") is not None:
            warm_start.start(model, config, heads)
        if run.checkpointing:
            checkpoint_activations(model, to_the_end=room is not None)
        if run.compile:
            compiling.compile_layers(problem, runtime.device)
    if run.parallel:
        parallel.begin(model, run.parallel, runtime.device)
    groups = methods.parameter_groups(model, method, heads, training.lr, training.head_lr)
    history = History(folder / "history.csv", tracker)
    with offload.dispatched(model, runtime.device, room, folder), history.file:
        trained = train(
            problem, groups, training, config.seed, history,
            progress=parallel.rank() == 0, method=method, memory=peak.read, checkpoint=_checkpoint(config, folder),
        )  # fmt: skip
        scores = {"validation": trained.validation}
        if problem.rows["test"]:
            scores["test"] = _test(problem, items.digest(tasks.test_rows(data)), folder)
    trainable = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    total = quantization.size(model).numbers
    kept = keeps_weights(run.keep_weights, trainable, total)
    if kept and (runtime.sharded or parallel.rank() == 0):
        io.save(model, folder / "adapter")
    results = {
        "trainable_params": trainable,
        "total_params": total,
        "head_params": sum(p.numel() for name in heads for p in model.get_submodule(name).parameters()),
        "weights_kept": kept,
        **{f"{split}_examples": len(problem.rows[split]) for split in tasks.SPLITS},
        "train_seconds": trained.seconds,
        "tokens_per_second": trained.tokens / trained.seconds if groups else None,
        "peak_memory_bytes": max(parallel.gathered(peak.read())),
        "training_memory_bytes": None
        if trained.memory is None
        else max(parallel.gathered(trained.memory - peak.before)),
        "main_metric": problem.metric,
        "validation_metric": "loss" if config.given["tuning"].get("by") == "loss" else problem.validation_metric,
        "validation_accuracy": trained.collapse.accuracy,
        "majority_share": trained.collapse.majority,
        "collapsed": trained.collapse.collapsed,
        "metrics": [
            {"split": split, "metric": metric, "value": value}
            for split, values in scores.items()
            for metric, value in values.items()
        ],
        "protocol": config.given["preset"].get("protocol"),
        "recipe": RECIPE,
        "precision": str(runtime.dtype).removeprefix("torch."),
        "device": str(runtime.device),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor(),
            "kind": processor.kind(runtime.device),
            "threads": torch.get_num_threads(),
            **({"parallel": run.parallel, "processes": parallel.size()} if run.parallel else {}),
            **({"offload": run.offload} if room is not None else {}),
            **({"compile": True} if run.compile else {}),
        },
        "versions": {package: version(package) for package in PACKAGES},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    (folder / "metrics.json").write_text(json.dumps(results, indent=1))
    if tracker:
        tracker.score(trackers.scores(results))
    if parallel.rank() == 0:
        header.note_seconds(config, time.perf_counter() - started)


def _test(problem: Problem, of: str, folder: Path) -> dict[str, float]:
    """The scores of the test split; what became of its items, whose digest is `of`, is written to `folder`."""
    test = problem.evaluate("test")
    if test.outputs:
        with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(output, ensure_ascii=False) + "\n" for output in test.outputs)
    (folder / items.FILE).write_text(json.dumps(items.pack(test.items, of)))
    return test.scores


def keeps_weights(keep: str, trainable: int, total: int) -> bool:
    """Whether a run stores what it has trained: always, never, or, where `keep` is auto, unless that is more than a
    quarter of the model: full fine-tuning's weights are gigabytes, an adapter's megabytes."""
    return keep == "all" or (keep == "auto" and 4 * trainable <= total)


def _checkpoint(config: RunConfig, folder: Path) -> Checkpoint | None:
    every = config.runtime.checkpoint_every
    if every is None:
        return None
    if config.method.get("optimizer") == "badam":
        raise InputError("runtime.checkpoint_every: BAdam's turns cannot be taken up again; set it to null")
    return Checkpoint(store_of(config.results_dir).checkpoint(run_id(definition(config.given))), every)
