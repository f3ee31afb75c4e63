"""What one device holds of a model whose frozen weights are shared out by torch's fully_shard: `experiments.parallel`.

A share is whole rows: of a parameter of n rows ceil(n / devices), padding included. To compute, a device gathers one
layer at a time, and the next one meanwhile; what is in no layer (embeddings, the output layer) it gathers at the start
of a step and keeps to its end, and has twice for a moment, as a buffer and as weights. What is trained, buffers, and
the scales and tables of quantised layers are whole on every device.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from experiments.layers import layers


def share(model: nn.Module, devices: int) -> int:
    """Bytes of one device's rows of all frozen parameters."""
    return sum(math.ceil(len(own) / devices) * (own.nbytes // len(own)) for own in _frozen(model).values())


def gathered(model: nn.Module) -> int:
    """Bytes of frozen parameters that a device has whole, at most at one time."""
    blocks = [_frozen(layer) for layer in layers(model)]
    inside = {key for block in blocks for key in block}
    outside = _bytes({key: own for key, own in _frozen(model).items() if key not in inside})
    return outside + max(outside, 2 * max(map(_bytes, blocks)))


def saved(model: nn.Module, devices: int) -> int:
    """Bytes that one of several devices holds less than one that has the model alone; below 0 for a small model."""
    return _bytes(_frozen(model)) - share(model, devices) - gathered(model)


def _frozen(module: nn.Module) -> dict[int, Tensor]:
    return {id(own): own for own in module.parameters() if not own.requires_grad}


def _bytes(parameters: dict[int, Tensor]) -> int:
    return sum(own.nbytes for own in parameters.values())
