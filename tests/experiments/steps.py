"""Optimizers in tests: two that a method can ask for, gradients to step with, and what a forward pass keeps."""

from typing import Any

import torch
from networks import BATCH
from torch import Tensor, nn

GALORE = {"name": "full", "optimizer": "galore", "r": 2, "refresh": 3, "scale": 0.5}
BADAM = {"name": "full", "optimizer": "badam", "switch": 2, "order": "descending", "block": 1}


def gradients(steps: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(3, 0.1, shape[-1])  # singular values well apart
    return [torch.randn(shape, generator=generator) * scale for _ in range(steps)]


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, found: list[Tensor]) -> Tensor:
    """The parameter after a step with each of the gradients."""
    for gradient in found:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def kept(model: Any) -> int:
    """Bytes that a forward pass keeps for the backward pass, without the parameters, which are there anyway."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**BATCH).loss
    del loss
    return sum(found.values())
