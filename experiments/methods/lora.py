"""LoRA and its variants: A and B of every adapter are trained (Hu et al. 2021, section 4)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from experiments import quantization
from experiments.checks import check_flag
from experiments.methods import Backward
from lora import variants
from lora.config import InputError, LoRAConfig
from lora.model import inject

# A variant that changes what an adapter adds is on or off: `dora: true`.
SWITCHES = tuple(name for name in variants.known(variants.Update) if name != variants.PLAIN)
OWN = tuple(field.name for field in dataclasses.fields(LoRAConfig) if field.name != "variant")
# lr_ratio is LoRA+'s: a matter of the optimizer, see `parameter_groups`.
FIELDS = (*OWN, *SWITCHES, "lr_ratio")


def config(method: Mapping[str, Any]) -> LoRAConfig:
    """LoRAConfig of a method config, where the weight types are one word: `q+v`. Raises InputError for bad fields."""
    types = method.get("weight_types", "q+v")
    if not isinstance(types, str):
        raise InputError(f"method.weight_types = {types!r}: join them by +, as q+v")
    for name in SWITCHES:
        check_flag(f"method.{name}", method.get(name, False))
    chosen = [name for name in SWITCHES if method.get(name)]
    if len(chosen) > 1:
        raise InputError(f"method.{chosen[0]} and method.{chosen[1]} are both on: choose one")
    own = {key: value for key, value in method.items() if key in OWN}
    own["weight_types"] = tuple(types.split("+")) if types else ()
    return LoRAConfig(**own, variant=chosen[0] if chosen else variants.PLAIN)


def apply(model: nn.Module, method: Mapping[str, Any], backward: Backward) -> None:
    """Inject the adapters; a start from gradients takes them from `backward`, loftq the weights from the pretrained."""
    inject(model, config(method), backward, functools.partial(quantization.pretrained, model))
