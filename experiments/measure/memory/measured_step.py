"""What a training step of a setup takes: the trainer's own step of the real model, measured.

On a GPU that is what torch's allocator says. On a CPU the allocator tells a profiler of each block that it hands out
and takes back, oneDNN's scratch memory included; what was there before the step is added. What is not in either: the
program itself, libraries' own heaps, and blocks that are free but not given back to the system; all of this is in the
resident size.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from experiments.compute import PeakMemory
from experiments.config import ModelSettings
from experiments.measure.memory import training_step
from experiments.measure.memory.setup import LABELS, Setup
from experiments.models import Runtime, load_classifier, load_language_model
from experiments.problems.base import Problem, Rows
from lora.config import InputError
from lora.model import trainable_parameters


class Measured(NamedTuple):
    """Bytes at the peak of a step: `allocated` by torch, `resident` of the process, which had `before` at its start."""

    allocated: int
    resident: int
    before: int


class Step:
    """A real model with its method and optimizer, which takes training steps. Raises InputError as its parts do.

    `adamw` are options of torch's AdamW, which takes the place of the trainer's optimizer where there are any.
    """

    def __init__(self, setup: Setup, where: Runtime, adamw: Mapping[str, Any] | None = None) -> None:
        model_settings = ModelSettings.of(setup.model)
        if setup.targets is None:
            labels = tuple(map(str, range(LABELS)))
            model, _ = load_classifier(model_settings, SimpleNamespace(label_names=labels), where)  # type: ignore[arg-type]
        else:
            model, _ = load_language_model(model_settings, where)
        self.rows: Rows = training_step.rows(model.config, setup)
        self.problem: Problem = training_step.adapt(model, self.rows, setup, where)
        self.optimizer = training_step.optimizer(self.problem, setup, training_step.method(setup))
        if adamw:
            self.optimizer = torch.optim.AdamW(trainable_parameters(model).values(), weight_decay=0.0, **adamw)

    def __call__(self) -> None:
        """A training step."""
        training_step.gradients(self.problem, self.rows, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(setup: Setup, adamw: Mapping[str, Any] | None = None) -> Measured:
    """The peaks of a training step. To be called in a process that has done, and will do, nothing else.

    Raises InputError for precision amp, which is planned alone, and as a Step.
    """
    if setup.precision == "amp":
        raise InputError("precision = amp is planned, but not trained with here: choose bf16, fp32 or pure16")
    where = training_step.runtime(setup, setup.device)
    peak = PeakMemory(where.device)
    take_step = Step(setup, where, adamw)
    take_step()  # from the second one on there are the optimizer's states
    if where.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where.device)  # loading may have taken more
        take_step()
        return Measured(peak.read(), peak.read(), peak.before)
    gc.collect()
    held = _held()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        take_step()
    resident = peak.read()
    return Measured(held + max(_totals(record), default=0), resident, peak.before)


def _held() -> int:
    """Bytes of all tensors that there are. Those on the meta device have a size and take nothing."""
    tensors = [found for found in gc.get_objects() if issubclass(type(found), Tensor) and not found.is_meta]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _totals(record: Any) -> Iterator[int]:
    """What the allocator had handed out, of all since the profiler began, after each event."""
    waiting = list(record.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event.extra_fields.total_allocated


Given = TypeVar("Given")
Found = TypeVar("Found")


def in_children(task: Callable[[Given], Found], given: Sequence[Given]) -> Iterator[Found]:
    """What `task` returns of each, in the order given; each has a process of its own, one after the other.

    Raises InputError if such a process ends without a result.
    """
    # The profiler says that it begins and ends, and that it does not know what was there before, which we count.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    context = multiprocessing.get_context("forkserver")  # it imports torch once, for all of them
    context.set_forkserver_preload([task.__module__])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        try:
            yield from pool.map(task, given)
        except BrokenProcessPool as error:
            raise InputError("a training step ended without a result: is there memory enough for it?") from error
        finally:
            pool.shutdown(cancel_futures=True)
