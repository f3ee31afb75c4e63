"""The floor: the body stays as it was pretrained, only the task's head is trained."""

from __future__ import annotations

from torch import nn

from experiments.method_settings import Plain
from experiments.methods import Backward


def apply(model: nn.Module, method: Plain, backward: Backward) -> None:
    """Nothing: the head is trained with every method."""
