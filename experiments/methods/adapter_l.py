"""Adapter_L (Lin et al. 2020): one behind each layer, after the MLP, with a layer norm of its own."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from experiments.layers import layers
from experiments.method_settings import Adapter
from experiments.methods import Backward
from experiments.methods._adapters import attach


def apply(model: nn.Module, method: Adapter, backward: Backward) -> None:
    """Attach L adapters h + up(relu(down(LN(h)))), with h what a layer gives to the next."""
    attach(model, layers(model), method, functional.relu, norm=True)
