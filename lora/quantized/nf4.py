"""4-bit codes for normal weights in blocks of 64 inputs, whose scales are quantised again, by bitsandbytes.

QLoRA, Dettmers et al. 2023, arXiv 2305.14314.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora.errors import InputError, library
from lora.quantized import GROUP, Quantization, gathered


class _NF4(Quantization):
    """bitsandbytes' Linear4bit, with its other settings too (fp4, other blocks) where it was made elsewhere."""

    layer, module, groups = "Linear4bit", "bitsandbytes.nn", "inputs"
    settings = {"quant_type": "nf4", "blocksize": GROUP, "compress_statistics": True}  # noqa: RUF012 (never written)

    def _make(self, module: Any, weight: Tensor, device: torch.device, settings: Mapping[str, Any]) -> Any:
        d, k = weight.shape
        made = module.Linear4bit(k, d, bias=False, compute_dtype=weight.dtype, device="meta")
        made.weight = module.Params4bit(weight, requires_grad=False, module=made, **settings).to(device)
        return made

    def _hollow(self, module: Any, d: int, k: int, dtype: torch.dtype) -> Any:
        state = library("bitsandbytes.functional", self.name).QuantState
        groups = math.ceil(d * k / GROUP)
        scales = state(torch.empty(math.ceil(groups / 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32)
        made = super()._hollow(module, d, k, dtype)
        made.weight = nn.Parameter(torch.empty(math.ceil(d * k / 2), 1, dtype=torch.uint8), requires_grad=False)
        made.weight.quant_state = state(
            torch.empty(groups, dtype=torch.uint8), torch.Size((d, k)), torch.empty(16), GROUP, "nf4", dtype,
            torch.empty(()), scales,
        )  # fmt: skip
        made.compute_type_is_set, made.support_avx512bf16_for_cpu = True, False
        return made

    def check(self, layer: Any) -> nn.Module:
        """bitsandbytes 0.50 fails twice on a CPU. One with AVX512-BF16 packs a layer anew, for good, in its first
        forward pass without gradients: scales are coarser and there is no gradient from then on. That is switched off
        here. And blocks over the end of a row are read wrongly. Raises InputError if either has happened."""
        if layer.weight.device.type == "cpu":
            layer.support_avx512bf16_for_cpu = False
            state = layer.weight.quant_state
            if getattr(state, "packing_format_for_cpu", False):
                raise InputError(
                    "a 4-bit layer has been packed by bitsandbytes for inference alone, in a forward pass on this CPU: "
                    "load the model again, and do what is to be done with it before that"
                )
            if layer.in_features % state.blocksize:
                raise InputError(
                    f"a 4-bit layer has {layer.in_features} inputs in blocks of {state.blocksize}, which bitsandbytes "
                    "reads wrongly on a CPU: use a GPU, or int8"
                )
        return super().check(layer)

    def settings_of(self, layer: Any) -> dict[str, Any]:
        return {name: getattr(layer.weight, name) for name in self.settings}

    def dtype(self, layer: Any) -> torch.dtype:
        return getattr(layer, "compute_dtype", None) or _state(layer).dtype

    def dequantize(self, layer: Any) -> Tensor:
        functional = library("bitsandbytes.functional", self.name)
        weight: Tensor = functional.dequantize_4bit(gathered(layer.weight.data), _state(layer))
        return weight.to(self.dtype(layer))

    def tensors(self, layer: Any) -> list[Tensor]:
        state = _state(layer)
        again = [] if state.state2 is None else [state.offset, state.state2.absmax, state.state2.code]
        return [layer.weight.data, state.absmax, state.code, *again]


def _state(layer: Any) -> Any:
    """Scales and tables. A weight that is sharded has lost them, the layer has not."""
    return getattr(layer.weight, "quant_state", None) or layer.quant_state


KIND = _NF4(__name__)
