"""LoRA: A and B of every adapter and the head are trained, all else is frozen (Hu et al. 2021, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lora.config import InputError, LoRAConfig
from lora.inject import freeze, inject


def config(method: Mapping[str, Any]) -> LoRAConfig:
    """LoRAConfig of a method config, where the weight types are one word: `q+v`. Raises InputError for bad fields."""
    fields = {key: value for key, value in method.items() if key not in ("name", "weight_types")}
    types = method["weight_types"]
    try:
        return LoRAConfig(weight_types=tuple(types.split("+")) if types else (), **fields)
    except TypeError as error:
        raise InputError(f"method=lora: {error}") from error


def apply(model: nn.Module, method: Mapping[str, Any], heads: Sequence[str]) -> None:
    """Inject the adapters and freeze all but them and the heads."""
    inject(model, config(method))
    freeze(model, heads)
