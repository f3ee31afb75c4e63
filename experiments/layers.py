"""The parts of a transformers model that methods other than LoRA change: its body and its layers."""

from __future__ import annotations

import sys
from typing import Any, cast

from torch import nn

from lora.config import InputError


def body(model: nn.Module) -> Any:
    """The pretrained transformer, without the head. Raises InputError for an encoder-decoder."""
    found = cast(Any, model).base_model
    if getattr(found.config, "is_encoder_decoder", False):
        raise InputError(f"a {found.config.model_type} model has an encoder and a decoder: this method knows one stack")
    return found


def positions(model: nn.Module) -> int:
    """The most tokens that `model` can read at once."""
    inner: Any = cast(Any, model).base_model
    most = getattr(inner.config, "max_position_embeddings", None) or 0
    most = most if most > 0 else sys.maxsize  # XLNet's is -1: it has no limit
    table = getattr(getattr(inner, "embeddings", None), "position_embeddings", None)
    unused = getattr(table, "padding_idx", None)  # RoBERTa's first position comes after that of padding
    return int(most) if unused is None else int(most) - unused - 1


def layers(model: nn.Module) -> list[nn.Module]:
    """The numbered layers of the body, from the first to the last. Raises InputError if they are not found."""
    inner = body(model)
    depth = getattr(inner.config, "num_hidden_layers", None)
    if depth is None:
        raise InputError(f"a {inner.config.model_type} model is no single stack of layers, which this method adapts")
    for module in inner.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return list(module)
    raise InputError(f"a {inner.config.model_type} model has no list of {depth} layers that this method could adapt")
