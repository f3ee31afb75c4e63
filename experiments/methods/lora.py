"""LoRA and its variants: A and B of every adapter are trained (Hu et al. 2021, section 4)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments import quantization
from experiments.methods import Backward
from lora.config import InputError, LoRAConfig
from lora.inject import inject

# lr_ratio is LoRA+'s: a matter of the optimizer, see `parameter_groups`.
FIELDS = (*(field.name for field in dataclasses.fields(LoRAConfig)), "lr_ratio")


def config(method: Mapping[str, Any]) -> LoRAConfig:
    """LoRAConfig of a method config, where the weight types are one word: `q+v`. Raises InputError for bad fields."""
    own = {field.name for field in dataclasses.fields(LoRAConfig)} - {"weight_types"}
    types = method.get("weight_types", "q+v")
    if not isinstance(types, str):
        raise InputError(f"method.weight_types = {types!r}: join them by +, as q+v")
    return LoRAConfig(
        weight_types=tuple(types.split("+")) if types else (),
        **{key: value for key, value in method.items() if key in own},
    )


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Inject the adapters; a start from gradients takes them from `backward`, loftq the weights from the pretrained."""
    inject(model, config(method), backward, functools.partial(quantization.pretrained, model))
