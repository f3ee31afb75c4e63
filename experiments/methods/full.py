"""Full fine-tuning: every parameter is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments.methods import Backward

FIELDS = ()


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Train all of `model`."""
    model.requires_grad_(True)
