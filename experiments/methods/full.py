"""Full fine-tuning: every parameter is trained, by AdamW, or by GaLore or BAdam, which hold less beside the weights."""

from __future__ import annotations

from torch import nn

from experiments.layers import layers
from experiments.method_settings import BAdam, Full
from experiments.methods import Backward


def apply(model: nn.Module, method: Full, backward: Backward) -> None:
    """Train all of `model`; with BAdam its layers alone."""
    if not isinstance(method.optimizer, BAdam):
        model.requires_grad_(True)
        return
    for layer in layers(model):
        layer.requires_grad_(True)
