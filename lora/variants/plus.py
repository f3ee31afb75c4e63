"""LoRA+: B learns faster than A (Hayou et al. 2024, arXiv 2402.12354).

    A <- A - eta G_A      B <- B - lambda eta G_B      lambda > 1; the paper advises about 16

because with one learning rate for both, as the width grows either A or B is hardly trained (section 4).
"""

from __future__ import annotations

from typing import Any

from torch import nn

from lora.errors import InputError, is_number
from lora.model import lora_layers, trainable_parameters


def parameter_groups(model: nn.Module, lr: float, lr_ratio: float) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: B of every adapter at `lr * lr_ratio`, all else that is trained at `lr`.

    Raises InputError if the ratio is no positive number, or if no B is trained.
    """
    if not is_number(lr_ratio) or lr_ratio <= 0:
        raise InputError(f"lr_ratio = {lr_ratio!r}: LoRA+ needs a positive number, how much faster B learns than A")
    faster = {id(B) for _, layer in lora_layers(model) for B in layer.lora_B.values()}
    trained = trainable_parameters(model).values()
    groups = [
        {"params": [parameter for parameter in trained if id(parameter) not in faster], "lr": lr},
        {"params": [parameter for parameter in trained if id(parameter) in faster], "lr": lr * lr_ratio},
    ]
    if not groups[1]["params"]:
        raise InputError("LoRA+ trains B faster, but no B of an adapter is trained: inject adapters first")
    return groups
