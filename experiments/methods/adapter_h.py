"""Adapter_H (Houlsby et al. 2019): one behind attention and one behind the MLP of each layer, before the residual."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from experiments.method_settings import Adapter
from experiments.methods import Backward
from experiments.methods._adapters import attach
from lora.config import LoRAConfig
from lora.targets import find_places


def apply(model: nn.Module, method: Adapter, backward: Backward) -> None:
    """Attach 2 L adapters, with GELU as in the authors' code, to the output projections o and down.

    Layer norms stay frozen, as in the paper's count for Adapter_H; Houlsby et al. train them too. The model's own
    dropout comes after the adapters; the authors have it before.
    """
    places = find_places(model, LoRAConfig(r=1, weight_types=("o", "down")))
    attach(model, (model.get_submodule(place.module) for place in places), method, functional.gelu)
