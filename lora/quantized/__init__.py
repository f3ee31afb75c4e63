"""Linear layers that hold a frozen weight in few bits: a file a way to hold it, found by its name (`KIND` in it).

Each computes h = W0 x + bias, where W0 (d, k) is what its codes stand for: `dequantize`; int8 rounds x too. The
libraries are imported when a layer is made or read. Layers that they have made elsewhere, with other settings, are read
and made again all the same.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from lora.config import QUANTIZATIONS
from lora.libraries import is_a
from lora.quantized._base import GROUP as GROUP
from lora.quantized._base import Quantization
from lora.quantized._base import linear as linear

# It warns of missing extras when peft or transformers import it, and in every forward pass of int8 that x is rounded.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

KINDS: dict[str, Quantization] = {name: importlib.import_module(f"{__name__}.{name}").KIND for name in QUANTIZATIONS}


def _kind(layer: nn.Module) -> Quantization | None:
    """The kind of a quantised layer by its class, of whatever settings; None for all other modules."""
    return next((kind for kind in KINDS.values() if is_a(layer, kind.layer)), None)


def _kind_of(layer: nn.Module) -> Quantization:
    kind = _kind(layer)
    if kind is None:
        raise TypeError(f"a {type(layer).__name__} is not quantised")
    return kind


def is_quantized(module: nn.Module) -> bool:
    """True for a layer of one of KINDS."""
    return _kind(module) is not None


def quantize(weight: Tensor, bias: Tensor | None, kind: str, device: torch.device | None = None) -> nn.Module:
    """A layer of `kind`, one of KINDS, of a weight (d, k) and a bias (d,), on `device` (None: the weight's own). It
    computes in the weight's precision.

    Raises InputError if the library is not installed, or if GROUP divides not d (int2) or k (nf4).
    """
    KINDS[kind].check_shape(*weight.shape)
    return KINDS[kind].quantize(weight, bias, device or weight.device)


def requantize(layer: Any, weight: Tensor) -> nn.Module:
    """A layer as `layer` is, of the same kind and settings, bias and device, that holds `weight` (d, k) instead."""
    kind = _kind_of(layer)
    made = kind.quantize(weight.to(kind.dtype(layer)), layer.bias, weight.device, kind.settings_of(layer))
    return made.train(layer.training)


def check(layer: nn.Module) -> nn.Module:
    """The layer itself, quantised or not. Raises InputError if its library cannot compute with it rightly."""
    kind = _kind(layer)
    return kind.check(layer) if kind else layer


@torch.no_grad()
def dequantize(layer: nn.Module) -> Tensor:
    """W0 (d, k) of a quantised layer, in the precision in which it computes."""
    return _kind_of(layer).dequantize(layer)


def tensors(layer: nn.Module) -> list[Tensor]:
    """All that a quantised layer stores of its weight: codes, scales, and tables."""
    return _kind_of(layer).tensors(layer)


def stored_bytes(kind: str, d: int, k: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of all `tensors` of a weight (d, k) in a layer of `kind` that computes in `dtype`."""
    return KINDS[kind].stored_bytes(d, k, dtype)
