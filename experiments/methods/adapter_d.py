"""Adapter_D, AdapterDrop (Rücklé et al. 2021): Adapter_P without the adapters of the first layers."""

from __future__ import annotations

from torch import nn

from experiments.layers import layers
from experiments.method_settings import AdapterDrop
from experiments.methods import Backward, adapter_p
from lora.config import InputError


def apply(model: nn.Module, method: AdapterDrop, backward: Backward) -> None:
    """Attach adapters to all but the first `drop` layers. Raises InputError if none is left."""
    blocks, drop = layers(model), method.drop
    if drop >= len(blocks):
        raise InputError(f"method.drop = {drop} leaves no adapter: the model has {len(blocks)} layers")
    adapter_p.attach_to(model, blocks[drop:], method)
