"""LoRA and its variants: A and B of every adapter are trained (Hu et al. 2021, section 4)."""

from __future__ import annotations

import dataclasses
import functools

from torch import nn

from experiments import quantization
from experiments.method_settings import LoRA
from experiments.methods import Backward
from lora import variants
from lora.config import LoRAConfig
from lora.model import inject


def config(method: LoRA) -> LoRAConfig:
    """What the adapters are; lr_ratio is a matter of the optimizer. Raises InputError for what no model could take."""
    names = [field.name for field in dataclasses.fields(LoRAConfig) if field.name != "variant"]
    own = {name: getattr(method, name) for name in names}
    own["weight_types"] = tuple(method.weight_types.split("+")) if method.weight_types else ()
    return LoRAConfig(**own, variant="dora" if method.dora else variants.PLAIN)


def apply(model: nn.Module, method: LoRA, backward: Backward) -> None:
    """Inject the adapters; a start from gradients takes them from `backward`, loftq the weights from the pretrained."""
    inject(model, config(method), backward, functools.partial(quantization.pretrained, model))
