"""LoRA and its variants: A and B of every adapter are trained (Hu et al. 2021, section 4)."""

from __future__ import annotations

import dataclasses
import functools

from torch import nn

from experiments import quantization
from experiments.method_settings import LoRA
from experiments.methods import Backward
from lora import variants
from lora.config import InputError, LoRAConfig
from lora.model import inject

# A variant that changes what an adapter adds is on or off: `dora: true`.
SWITCHES = tuple(name for name in variants.known(variants.Update) if name != variants.PLAIN)
OWN = tuple(field.name for field in dataclasses.fields(LoRAConfig) if field.name not in ("variant", "weight_types"))


def config(method: LoRA) -> LoRAConfig:
    """What the adapters are; lr_ratio is a matter of the optimizer. Raises InputError for what no model could take."""
    chosen = [name for name in SWITCHES if getattr(method, name, False)]
    if len(chosen) > 1:
        raise InputError(f"method.{chosen[0]} and method.{chosen[1]} are both on: choose one")
    types = tuple(method.weight_types.split("+")) if method.weight_types else ()
    own = {name: getattr(method, name) for name in OWN}
    return LoRAConfig(**own, weight_types=types, variant=chosen[0] if chosen else variants.PLAIN)


def apply(model: nn.Module, method: LoRA, backward: Backward) -> None:
    """Inject the adapters; a start from gradients takes them from `backward`, loftq the weights from the pretrained."""
    inject(model, config(method), backward, functools.partial(quantization.pretrained, model))
