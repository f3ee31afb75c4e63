"""Optimizers of the training loop: torch's AdamW, and those that a method or training.state_precision asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from experiments import method_settings
from experiments.method_settings import BAdam, GaLore
from experiments.optimizers import badam, galore
from experiments.optimizers.adamw import AdamW


def make(
    model: nn.Module,
    groups: list[dict[str, Any]],
    method: Mapping[str, Any],
    weight_decay: float,
    state_precision: str | None,
    seed: int,
    steps: int,
) -> torch.optim.Optimizer:
    """The optimizer of a run of so many steps; `groups` are its parameters, with their learning rates. Its moments are
    in `state_precision`, bf16, or None: that of the weights.

    Raises InputError as the optimizers do.
    """
    dtype = torch.bfloat16 if state_precision else torch.float32
    chosen = method_settings.optimizer(method) if method else None
    if isinstance(chosen, GaLore):
        return galore.GaLore(galore.split(model, groups, chosen), weight_decay, dtype, seed)
    optimizer: torch.optim.Optimizer = (
        AdamW(groups, weight_decay, dtype, seed)
        if state_precision
        else torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    )
    if isinstance(chosen, BAdam):
        badam.attach(optimizer, model, chosen, steps, seed)
    return optimizer
