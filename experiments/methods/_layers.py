"""The parts of a transformers model that methods other than LoRA change: its body and its layers."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from lora.config import InputError


def body(model: nn.Module) -> Any:
    """The pretrained transformer, without the head. Raises InputError for an encoder-decoder."""
    found = cast(Any, model).base_model
    if getattr(found.config, "is_encoder_decoder", False):
        raise InputError(f"a {found.config.model_type} model has an encoder and a decoder: this method knows one stack")
    return found


def layers(model: nn.Module) -> list[nn.Module]:
    """The numbered layers of the body, from the first to the last. Raises InputError if they are not found."""
    inner = body(model)
    depth = inner.config.num_hidden_layers
    for module in inner.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    raise InputError(f"a {inner.config.model_type} model has no list of {depth} layers that this method could adapt")
