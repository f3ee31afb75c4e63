"""The floor: the body stays as it was pretrained, only the task's head is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments.methods import Backward

FIELDS = ()


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Nothing: the head is trained with every method."""
