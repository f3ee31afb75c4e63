"""Optimizers of the training loop: torch's AdamW, and those that a method or training.state_precision asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from experiments.optimizers import badam, galore
from experiments.optimizers.adamw import AdamW
from lora.config import InputError

FIELDS = {"galore": galore.FIELDS, "badam": badam.FIELDS}  # by the name of the optimizer, beside AdamW


def check(method: Mapping[str, Any]) -> None:
    """Raises InputError if `method.optimizer` is unknown, or the method has fields of an optimizer that it has not."""
    name = method.get("optimizer")
    if name is not None and name not in FIELDS:
        raise InputError(f"method.optimizer = {name!r}: choose {', '.join(FIELDS)}, or null for AdamW")
    for other, fields in FIELDS.items():
        for field in fields:
            if other != name and field in method:
                raise InputError(f"method.{field} is of optimizer {other}, this one is {name or 'AdamW'}: leave it out")


def make(
    model: nn.Module,
    groups: list[dict[str, Any]],
    method: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
    steps: int,
) -> torch.optim.Optimizer:
    """The optimizer of a run of so many steps; `groups` are its parameters, with their learning rates.

    Raises InputError for an unknown training.state_precision and as the optimizers do.
    """
    precision, decay = training.get("state_precision"), training["weight_decay"]
    if precision not in (None, "bf16"):
        raise InputError(f"training.state_precision = {precision!r}: choose bf16, or null for that of the weights")
    dtype = torch.bfloat16 if precision else torch.float32
    if method.get("optimizer") == "galore":
        return galore.GaLore(galore.split(model, groups, method), decay, dtype, seed)
    optimizer: torch.optim.Optimizer = (
        AdamW(groups, decay, dtype, seed) if precision else torch.optim.AdamW(groups, weight_decay=decay, fused=True)
    )
    if method.get("optimizer") == "badam":
        badam.attach(optimizer, model, method, steps, seed)
    return optimizer
