"""The gradients of LoRA by hand and by autograd, and what the first optimizer steps do to A and B.

Conventions. Tokens are rows: X (T, k), H = X W0^T + s X A^T B^T (T, d), G = dL/dH (T, d), with A (r, k), B (d, r). Then

    dL/dB = s G^T (X A^T)      dL/dA = s (G B)^T X      dL/dX = G (W0 + s B A)

which for one token, as column vectors, are s g (A x)^T, s B^T g x^T and (W0 + s B A)^T g.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from experiments.models import head_modules
from lora.config import LoRAConfig
from lora.layer import LoRALayer, turned
from lora.model import freeze, inject, lora_layers
from lora.targets import weight_types

Batch = Mapping[str, Tensor]
STARTS = ("gaussian", "gaussian_b", "both_gaussian", "both_zero")
PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32}


@contextmanager
def captured(model: nn.Module) -> Iterator[dict[str, dict[str, Tensor]]]:
    """What a forward and a backward pass show at every adapted module: x (..., k), g = dL/dh (..., d), and dx,
    autograd's dL/dx through this module alone."""
    seen: dict[str, dict[str, Tensor]] = {}

    def before(name: str, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        # An alias: x feeds other modules too, and its own gradient would be the sum over all of them.
        alias: Any = inputs[0].view_as(inputs[0]) if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
        alias.register_hook(lambda gradient: seen[name].update(dx=gradient))
        seen[name] = {"x": alias.detach()}
        return (alias,)

    def after(name: str, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # Not the output itself: it may be a view that was written in place, and torch crashes on a hook on one.
        alias: Any = output.clone()
        alias.register_hook(lambda gradient: seen[name].update(g=gradient))
        return alias

    hooks = [
        hook
        for name, layer in lora_layers(model)
        for hook in (
            layer.register_forward_pre_hook(partial(before, name)),
            layer.register_forward_hook(partial(after, name)),
        )
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def by_hand(layer: LoRALayer, x: Tensor, g: Tensor) -> dict[tuple[str, str], Tensor]:
    """The formulas: (gradient, weight type) -> dL/dA (r, k), dL/dB (d, r), and for the whole module dL/dx (T, k)."""
    x, g = x.flatten(0, -2), g.flatten(0, -2)
    weight = turned(layer.base, layer.weight).clone()
    found: dict[tuple[str, str], Tensor] = {}
    for part in layer.parts:
        A, B, s, own = layer.lora_A[part.name], layer.lora_B[part.name], part.scaling, g[:, part.rows]
        found["dL/dB", part.name] = s * own.T @ (x @ A.T)
        found["dL/dA", part.name] = s * (own @ B).T @ x
        weight[part.rows] += s * B @ A
    found["dL/dx", "+".join(part.name for part in layer.parts)] = g @ weight
    return found


def check(model: nn.Module, batch: Batch) -> pd.DataFrame:
    """The formulas against autograd, for the adapters that `model` has (B = 0 would make dL/dA trivial).

    A row for each kind of module, weight type and gradient, with the largest error over all such modules: the largest
    deviation of an entry over autograd's largest entry.
    """
    model.zero_grad()
    with captured(model) as seen:
        model(**batch).loss.backward()
    rows = []
    for name, layer in lora_layers(model):
        auto = {("dL/dA", part): A.grad for part, A in layer.lora_A.items()}
        auto |= {("dL/dB", part): B.grad for part, B in layer.lora_B.items()}
        for key, ours in by_hand(layer, seen[name]["x"], seen[name]["g"]).items():
            theirs = auto.get(key, seen[name]["dx"].flatten(0, -2))
            assert theirs is not None
            error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
            kind = type(layer.base).__name__
            rows.append({"module": kind, "gradient": key[0], "weight_type": key[1], "modules": 1, "error": error})
    groups = pd.DataFrame(rows).groupby(["module", "weight_type", "gradient"], sort=False)
    return groups.agg({"modules": "sum", "error": "max"}).reset_index()


def checks(base: nn.Module, name: str, batch: Batch, ranks: Sequence[int]) -> pd.DataFrame:
    """`check` for all weight types of copies of `base` at every rank, in fp64 and fp32; A and B are drawn at random."""
    frames = []
    for r, (precision, dtype) in itertools.product(ranks, PRECISIONS.items()):
        model: Any = copy.deepcopy(base)
        torch.manual_seed(0)
        inject(model, LoRAConfig(r=r, alpha=1.5 * r, weight_types=weight_types(model)))
        for _, layer in lora_layers(model):
            for B in layer.lora_B.values():
                nn.init.normal_(B, std=0.02)
        freeze(model, head_modules(model))
        frames.append(check(model.to(dtype), batch).assign(model=name, precision=precision, r=r))
    return pd.concat(frames)


def first_steps(
    model: nn.Module, batch: Batch, start: str, at: Sequence[int], lr: float = 1e-3
) -> list[dict[str, Any]]:
    """AdamW on one batch, from `start`: Frobenius norms over all adapters of A, B, their gradients, and how far they
    moved, before the first step (0) and after the others in `at`."""
    inject(model, LoRAConfig(r=8, alpha=16, init=start))
    freeze(model, head_modules(model))
    matrices = {
        side: [matrix for _, layer in lora_layers(model) for matrix in getattr(layer, f"lora_{side}").values()]
        for side in "AB"
    }
    starts = {side: [matrix.detach().clone() for matrix in found] for side, found in matrices.items()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=lr, weight_decay=0.0)
    rows: list[dict[str, Any]] = []
    for step in range(max(at) + 1):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        if step in at:
            row = {"start": start, "step": step, "loss": loss.item()}
            for side, found in matrices.items():
                moved = [matrix - before for matrix, before in zip(found, starts[side], strict=True)]
                row[f"norm_{side}"] = norm(found)
                row[f"gradient_{side}"] = norm([matrix.grad for matrix in found])
                row[f"moved_{side}"] = norm(moved)
            rows.append(row)
        optimizer.step()
    return rows


def norm(tensors: Sequence[Tensor | None]) -> float:
    """Frobenius norm over all tensors, in fp64: zero only if every entry is."""
    return sum(t.detach().double().square().sum().item() for t in tensors if t is not None) ** 0.5
