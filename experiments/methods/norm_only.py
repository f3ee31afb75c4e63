"""The normalisation layers: nearest to BitFit where a model has no biases (Qi et al. 2022, arXiv 2205.02835)."""

from __future__ import annotations

from torch import nn

from experiments.layers import body
from experiments.method_settings import Plain
from experiments.methods import Backward
from lora.config import InputError


def apply(model: nn.Module, method: Plain, backward: Backward) -> None:
    """Train weights and biases of every LayerNorm and RMSNorm of the body. Raises InputError if it has none."""
    inner = body(model)
    norms = [module for module in inner.modules() if type(module).__name__.endswith(("LayerNorm", "RMSNorm"))]
    if not norms:
        raise InputError(f"a {inner.config.model_type} model has no LayerNorm or RMSNorm that could be trained")
    for norm in norms:
        norm.requires_grad_(True)
