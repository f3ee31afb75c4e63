"""Full fine-tuning: every parameter is trained, by AdamW, or by GaLore or BAdam, which hold less beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments import optimizers
from experiments.layers import layers
from experiments.methods import Backward

FIELDS = ("optimizer", *(field for fields in optimizers.FIELDS.values() for field in fields))


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Train all of `model`; with BAdam its layers alone. Raises InputError as `experiments.optimizers.check`."""
    optimizers.check(method)
    if method.get("optimizer") != "badam":
        model.requires_grad_(True)
        return
    for layer in layers(model):
        layer.requires_grad_(True)
