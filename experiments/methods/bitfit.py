"""BitFit: the bias vectors are trained, those of the normalisation layers included (Ben Zaken et al. 2021)."""

from __future__ import annotations

from torch import nn

from experiments.layers import body
from experiments.method_settings import Plain
from experiments.methods import Backward
from lora.config import InputError


def apply(model: nn.Module, method: Plain, backward: Backward) -> None:
    """Train every bias of the body. Raises InputError if it has none."""
    inner = body(model)
    biases = [parameter for name, parameter in inner.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise InputError(f"BitFit trains biases, but a {inner.config.model_type} model has none: choose another method")
    for bias in biases:
        bias.requires_grad_(True)
