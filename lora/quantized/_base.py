"""What a quantisation is: how its layers are made, read and counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora.errors import InputError
from lora.libraries import library

GROUP = 64  # weights that share a scale, in nf4 and int2


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen nn.Linear of this very weight (d, k) and bias (d,)."""
    d, k = weight.shape
    made = nn.Linear(k, d, bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


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

    @abstractmethod
    def _make(self, module: Any, weight: Tensor, device: torch.device, settings: Mapping[str, Any]) -> Any: ...

    def check(self, layer: Any) -> nn.Module:
        """The layer itself. Raises InputError if its library cannot compute with it rightly."""
        checked: nn.Module = layer
        return checked

    def dtype(self, layer: Any) -> torch.dtype:
        """The precision in which a layer computes; where nothing else is known, fp16."""
        return getattr(layer, "compute_dtype", None) or torch.float16

    @abstractmethod
    def settings_of(self, layer: Any) -> dict[str, Any]: ...  # which may have been made elsewhere

    @abstractmethod
    def dequantize(self, layer: Any) -> Tensor: ...

    @abstractmethod
    def tensors(self, layer: Any) -> list[Tensor]: ...

    @abstractmethod
    def stored_bytes(self, d: int, k: int, dtype: torch.dtype) -> int: ...
