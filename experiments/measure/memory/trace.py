"""Live memory of a step that is not computed: every operation on fake tensors is seen, and what it leaves alive.

torch has such a tracker (torch.distributed._tools.mem_tracker), but its time grows with the square of the number of
modules: minutes for a step of 30 layers.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

FORWARD, BACKWARD, GRADIENT, LOGITS, STEP, COPIES = "forward", "backward", "gradient", "logits", "step", "copies"
Bytes = Counter[str]  # by kind


class _Storage:
    def __init__(self, size: int, kind: str, gone: weakref.ref[torch.UntypedStorage]) -> None:
        self.size, self.kind, self.gone = size, kind, gone


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that are made within it and still alive, by kind, and the most there were at one time.

    `peaks` has the composition of the largest sum in each part of a step; the names of the parts that are now running
    are in `parts`. Tensors of the shape `logits` are of the kind LOGITS. With `copies` the operations are those of a
    CPU, whose kernels copy operands of another precision.
    """

    def __init__(self, logits: tuple[int, ...], copies: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.logits, self.copies = logits, copies
        self.parts: Sequence[str] = (FORWARD,)
        self.peaks: dict[str, Bytes] = {}
        self.kept: Bytes = Counter()  # alive when the backward pass begins
        self.most_logits = 0
        self.live: Bytes = Counter()
        self._storages: dict[int, _Storage] = {}
        self._stepping = self._backward = self._paused = False

    def enter(self, *parts: str) -> None:
        """From now on these parts of the step are running."""
        self.parts = parts

    def step(self, part: str) -> list[str]:
        """The backward pass is over: what is made from now on is the optimizer's, in `part`. Returns those before."""
        self._stepping, self.parts = True, (part,)
        return list(self.peaks)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is made within it is not counted, ever."""
        self._paused = True
        yield
        self._paused = False

    def gradient(self, parameter: Tensor) -> None:
        """A hook for parameters: their gradients are there, and are to be told from temporary tensors."""
        if parameter.grad is not None:
            record = self._storages.get(_key(parameter.grad))
            if record is not None:
                self.live[record.kind] -= record.size
                record.kind = GRADIENT
                self.live[GRADIENT] += record.size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._paused:
            return result
        backward = torch._C._current_graph_task_id() != -1
        if backward and not self._backward:
            self.kept = Counter(self.live)
        self._backward = backward
        for tensor in self._new(result, (args, kwargs)):
            self._add(tensor)
        if not (backward and func is torch.ops.aten.add.Tensor and _is_only_one(args[0])):
            self._note(_copies(func, args, result) if self.copies else 0)
        return result

    def _new(self, result: Any, given: Any) -> list[Tensor]:
        """The tensors of `result` whose storages are neither known nor those of what was given, such as weights."""
        new = [own for own in tree_iter(result) if isinstance(own, Tensor) and _key(own) not in self._storages]
        old = {_key(own) for own in tree_iter(given) if isinstance(own, Tensor)} if new else set()
        return [tensor for tensor in new if _key(tensor) not in old]

    def _add(self, tensor: Tensor) -> None:
        if _key(tensor) in self._storages:  # two results may be views of one
            return
        storage, kind = tensor.untyped_storage(), STEP if self._stepping else BACKWARD if self._backward else FORWARD
        if tuple(tensor.shape) == self.logits:
            kind = LOGITS
        key = _key(tensor)
        self._storages[key] = _Storage(storage.nbytes(), kind, weakref.ref(storage, lambda _: self._free(key)))
        self.live[kind] += storage.nbytes()

    def _free(self, key: int) -> None:
        record = self._storages.pop(key)
        self.live[record.kind] -= record.size

    def _note(self, copies: int) -> None:
        self.most_logits = max(self.most_logits, self.live[LOGITS])
        total = self.live.total() + copies
        for part in self.parts:
            if total > self.peaks.get(part, _NOTHING).total():
                self.peaks[part] = Counter({**self.live, COPIES: copies})


_NOTHING: Bytes = Counter()


def _is_only_one(tensor: Tensor) -> bool:
    """True if no other tensor has its storage. To such a gradient the engine adds another one in place, but not where
    there are dispatch modes: the sum is then to be counted when the terms are gone."""
    return torch._C._storage_Use_Count(_key(tensor)) == 2  # the tensor, and what `_key` has asked


def _copies(func: Any, args: Any, result: Any) -> int:
    """Bytes of operands and results that a CPU kernel has in the precision of the others for as long as it runs."""
    if torch.Tag.pointwise not in func.tags or not isinstance(result, Tensor):
        return 0
    floats = [own for own in (*args, result) if isinstance(own, Tensor) and own.ndim and own.is_floating_point()]
    size = max((own.element_size() for own in floats), default=0)
    return sum(size * own.numel() for own in floats if own.element_size() < size)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
