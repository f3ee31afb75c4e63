"""Linear layers that hold a frozen weight in few bits: a file a way to hold it, found by its name (`KIND` in it).

Each computes h = W0 x + bias, where W0 (d, k) is what its codes stand for: `dequantize`; int8 rounds x too. The
libraries are imported when a layer is made or read. Layers that they have made elsewhere, with other settings, are read
and made again all the same.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora.errors import InputError, is_a, library

# It warns of missing extras when peft or transformers import it, and in every forward pass of int8 that x is rounded.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

GROUP = 64  # weights that share a scale, in nf4 and int2


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen nn.Linear of this very weight (d, k) and bias (d,)."""
    d, k = weight.shape
    made = nn.Linear(k, d, bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


def gathered(weight: Tensor) -> Tensor:
    """A weight, or codes; all of it where processes hold a share each (torch's fully_shard), which all must ask for."""
    return cast("Any", weight).full_tensor() if is_a(weight, "DTensor") else weight


class Quantization(ABC):
    """A way to hold a weight (d, k). The layers are of a library's class, made here or elsewhere. What is not said here
    is as the functions of `lora.quantized` say.

    layer      the name of that class
    module     where it is, to be imported when a layer is made or read
    settings   of the layers that are made here
    groups     which of a weight's sides GROUP must divide: "inputs", "outputs", or neither: ""
    """

    layer: str
    module: str
    settings: Mapping[str, Any]
    groups = ""

    def __init__(self, module: str) -> None:
        self.name = module.rpartition(".")[2]

    def check_shape(self, d: int, k: int) -> None:
        """Raises InputError if GROUP does not divide what it must."""
        count = {"inputs": k, "outputs": d}.get(self.groups, 0)
        if count % GROUP:
            what = f"{self.name} takes weights in groups of {GROUP} {self.groups}, but there are {count}"
            raise InputError(f"{what}: choose int8")

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, bias: Tensor | None, device: torch.device, settings: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """A layer of a weight (d, k) and a bias (d,), on `device`, that computes in the weight's precision.

        Raises InputError if the library is not installed, or as `check`.
        """
        made = self._make(library(self.module, self.name), weight, device, settings or self.settings)
        made.bias = bias if bias is None else nn.Parameter(bias.detach().to(device), requires_grad=False)
        return self.check(made)

    def hollow(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """A layer as `quantize` makes it and its first forward pass leaves it, but for the values of its tensors, which
        a weight (d, k) without any need not have (fake tensors). Raises InputError as `quantize`."""
        d, k = weight.shape
        self.check_shape(d, k)
        made = self._hollow(library(self.module, self.name), d, k, weight.dtype)
        made.compute_dtype = weight.dtype
        made.bias = bias if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        return made

    def _hollow(self, module: Any, d: int, k: int, dtype: torch.dtype) -> Any:
        """Such a layer, of class `layer`. The parameters of bitsandbytes are tensors of classes of its own, which
        cannot be fake: ordinary ones stand for them."""
        kind = getattr(module, self.layer)
        made = kind.__new__(kind)
        nn.Module.__init__(made)
        made.in_features, made.out_features = k, d
        return made

    @abstractmethod
    def _make(self, module: Any, weight: Tensor, device: torch.device, settings: Mapping[str, Any]) -> Any: ...

    def check(self, layer: Any) -> nn.Module:
        """The layer itself. Raises InputError if its library cannot compute with it rightly."""
        return layer

    def dtype(self, layer: Any) -> torch.dtype:
        """The precision in which a layer computes; where nothing else is known, fp16."""
        return getattr(layer, "compute_dtype", None) or torch.float16

    @abstractmethod
    def settings_of(self, layer: Any) -> dict[str, Any]:
        """The settings of a layer, which may have been made elsewhere."""

    @abstractmethod
    def dequantize(self, layer: Any) -> Tensor:
        """W0 (d, k), in the precision in which the layer computes."""

    @abstractmethod
    def tensors(self, layer: Any) -> list[Tensor]:
        """All that a layer stores of its weight: codes, scales, and tables."""


KINDS: dict[str, Quantization] = {
    kind.name: importlib.import_module(f"{__name__}.{kind.name}").KIND for kind in pkgutil.iter_modules(__path__)
}


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
    """As `Quantization.dequantize`, of a layer of any kind."""
    return _kind_of(layer).dequantize(layer)


def tensors(layer: nn.Module) -> list[Tensor]:
    """As `Quantization.tensors`, of a layer of any kind."""
    return _kind_of(layer).tensors(layer)
