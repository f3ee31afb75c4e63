"""What a forward and a backward pass cost: FLOPs counted and by formula, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from lora.layer import LoRALayer

Batch = Mapping[str, Tensor]


class Flops(NamedTuple):
    """FLOPs of matrix products with weights, forward and backward: counted, by the exact sum over modules, and by the
    rule of thumb; and the counted ones of attention's own products, the same for every method."""

    counted: tuple[int, int]
    exact: tuple[int, int]
    rule: tuple[int, int]
    attention: tuple[int, int]


def flops(model: nn.Module, batch: Batch) -> Flops:
    """Counted against expected FLOPs of one forward and one backward pass; the loss is never counted.

    rule: forward 2 N T, backward 4 N T, or 2 N T where W0 is frozen: dL/dW0 is not formed; an adapter adds
    2 r (d + k) T forward and 4 r (d + k) T backward. N weights see all T tokens.
    exact: the same module by module, with the rows that it sees (a pooler sees one a text), and without dL/dx where x
    needs no gradient: q, k and v of the first layer read frozen embeddings.
    """
    T = batch["input_ids"].numel()
    exact, rule = [0, 0], [0, 0]

    def hook(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        (x,) = inputs
        t, x_grad = x[..., 0].numel(), x.requires_grad
        if isinstance(module, LoRALayer):
            for part in module.parts:
                (d, k), r = module.w0(part).shape, part.r
                exact[0] += 2 * t * r * (d + k)
                exact[1] += 2 * t * r * (2 * d + k + k * x_grad)
                rule[0], rule[1] = rule[0] + 2 * T * r * (d + k), rule[1] + 4 * T * r * (d + k)
            return
        n, w_grad = module.weight.numel(), module.weight.requires_grad
        exact[0], exact[1] = exact[0] + 2 * t * n, exact[1] + 2 * t * n * (x_grad + w_grad)
        if t == T:
            rule[0], rule[1] = rule[0] + 2 * T * n, rule[1] + 2 * T * n * (1 + w_grad)

    modules = [module for module in model.modules() if isinstance(module, nn.Linear | Conv1D | LoRALayer)]
    hooks = [module.register_forward_hook(hook) for module in modules]
    with FlopCounterMode(display=False) as forward:
        loss = model(**batch).loss
    for handle in hooks:
        handle.remove()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    model.zero_grad()
    counts = [counter.get_flop_counts()["Global"] for counter in (forward, backward)]
    weights = {torch.ops.aten.mm, torch.ops.aten.addmm}
    counted = [sum(n for op, n in count.items() if op in weights) for count in counts]
    attention = [sum(n for op, n in count.items() if op not in weights) for count in counts]
    return Flops(*((int(pair[0]), int(pair[1])) for pair in (counted, exact, rule, attention)))


def seconds(models: Mapping[Any, nn.Module], batch: Batch, trials: int) -> dict[Any, list[tuple[float, float]]]:
    """Forward and backward seconds of every model in each trial. Models take turns, so that a slow moment of the
    machine hits all of them; a first round warms up and is not counted."""
    synchronise: Callable[[], None] = torch.cuda.synchronize if batch["input_ids"].is_cuda else lambda: None
    found: dict[Any, list[tuple[float, float]]] = {key: [] for key in models}
    for trial in range(trials + 1):
        for key, model in models.items():
            synchronise()
            started = time.perf_counter()
            loss = model(**batch).loss
            synchronise()
            middle = time.perf_counter()
            loss.backward()
            synchronise()
            if trial:
                found[key].append((middle - started, time.perf_counter() - middle))
            model.zero_grad()
    return found
