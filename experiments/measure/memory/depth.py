"""A model of few layers in place of one with many: the same step but for how often its middle is repeated.

What is alive at a given place of a step is linear in the number of equal layers before and after that place. So the
peaks of the places of a model with 3 and with 4 of them are those of a model with 96, and between two places of equal
layers there is no higher one: a linear sequence is largest at its first or its last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from experiments.layers import layers
from experiments.measure.memory.trace import Bytes, Trace

SHORT = 3  # equal layers after one another that say what there is to say of more of them


class Run(NamedTuple):
    """Equal layers after one another: the first one's number, and how many there are."""

    first: int
    size: int


def runs(blocks: Sequence[nn.Module]) -> list[Run]:
    """Layers that are equal in modules, parameters, what is trained of them and hooks."""
    found = []
    for _, group in groupby(enumerate(map(_signature, blocks)), key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        found.append(Run(numbers[0], len(numbers)))
    return found


def _signature(block: nn.Module) -> list[Any]:
    parameters = [(name, own.shape, own.dtype, own.requires_grad) for name, own in block.named_parameters()]
    modules = [(name, type(own), len(own._forward_hooks)) for name, own in block.named_modules()]
    return [parameters, modules]


class Kept(NamedTuple):
    """The layers of a shortened model, by number, and the parts of a step that each of them is."""

    numbers: list[int]
    parts: list[tuple[str, ...]]


def kept(found: Sequence[Run], longer: Run | None = None) -> Kept:
    """At most SHORT layers of each run, one more of the run `longer`."""
    result = Kept([], [])
    for index, (first, size) in enumerate(found):
        short = min(size, SHORT + (found[index] == longer))
        for place in range(short):
            result.numbers.append(first + place)
            names = {f"{index} from the start {place}"} if place < 2 or size <= SHORT else set()
            if size > SHORT and place >= short - 2:
                names.add(f"{index} from the end {short - 1 - place}")
            result.parts.append(tuple(sorted(names)))
    return result


@contextmanager
def shortened(model: Any, numbers: Sequence[int]) -> Iterator[list[nn.Module]]:
    """Within it `model` has only these of its layers."""
    config, blocks = model.config.get_text_config(), layers(model)
    stack = next(own for own in model.modules() if isinstance(own, nn.ModuleList) and list(own) == blocks)
    modules, depth = stack._modules, config.num_hidden_layers
    few = [blocks[number] for number in numbers]
    stack._modules = {str(place): block for place, block in enumerate(few)}
    config.num_hidden_layers = len(few)
    try:
        yield few
    finally:
        stack._modules, config.num_hidden_layers = modules, depth


@contextmanager
def watched(trace: Trace, blocks: Sequence[nn.Module], parts: Sequence[tuple[str, ...]]) -> Iterator[None]:
    """Within it `trace` learns which layer is computing."""
    handles = []
    for block, names in zip(blocks, parts, strict=True):
        forward, backward = ([f"{way} {name}" for name in names] for way in ("forward", "backward"))
        handles.append(block.register_forward_pre_hook(_entering(trace, forward, backward)))
        handles.append(block.register_forward_hook(_leaving(trace, backward)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _entering(trace: Trace, forward: Sequence[str], backward: Sequence[str]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        recomputed = torch._C._current_graph_task_id() != -1
        trace.enter(*(backward if recomputed else forward))

    return hook


def _leaving(trace: Trace, backward: Sequence[str]) -> Callable[..., None]:
    def hook(block: nn.Module, args: Any, output: Any) -> None:
        if torch._C._current_graph_task_id() == -1:
            trace.enter("head")
        for tensor in tree_iter(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda _: trace.enter(*backward))  # type: ignore[no-untyped-call]

    return hook


def extrapolated(short: Mapping[str, Bytes], longer: Sequence[tuple[Run, Mapping[str, Bytes]]]) -> dict[str, Bytes]:
    """The bytes of each part in the whole model, from those with SHORT layers in each run, and with one more in one."""
    found = {part: Counter(own) for part, own in short.items()}
    for run, others in longer:
        for part, own in found.items():
            for kind in {*short[part], *others[part]}:
                own[kind] += (run.size - SHORT) * (others[part][kind] - short[part][kind])
    return found
