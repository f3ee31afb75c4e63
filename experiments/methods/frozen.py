"""Nothing is trained: a language model as it was pretrained, for in-context learning (paper, Table 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments.methods import Backward

FIELDS = ()


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Nothing."""
