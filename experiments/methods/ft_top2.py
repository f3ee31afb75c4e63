"""FT^Top2: the last two layers are trained (Li & Liang 2021, and the paper's Table 3)."""

from __future__ import annotations

from torch import nn

from experiments.layers import layers
from experiments.method_settings import LastLayers
from experiments.methods import Backward
from lora.config import InputError


def apply(model: nn.Module, method: LastLayers, backward: Backward) -> None:
    """Train the last `layers` layers. Raises InputError if there are fewer."""
    blocks, count = layers(model), method.layers
    if count > len(blocks):
        raise InputError(f"method.layers = {count}: the model has {len(blocks)} layers")
    for block in blocks[-count:]:
        block.requires_grad_(True)
