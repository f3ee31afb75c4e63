"""Nothing is trained: a language model as it was pretrained, for in-context learning (paper, Table 8)."""

from __future__ import annotations

from torch import nn

from experiments.method_settings import Plain
from experiments.methods import Backward


def apply(model: nn.Module, method: Plain, backward: Backward) -> None:
    """Nothing."""
