"""2-bit codes in groups of 64 outputs, with a scale and a zero point each, by hqq (HQQ, Badri and Shaji 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora.quantized import GROUP, Quantization, linear


class _Int2(Quantization):
    """hqq's HQQLinear, of other numbers of bits too where it was made elsewhere."""

    layer, module, groups = "HQQLinear", "hqq.core.quantize", "outputs"
    settings = {"nbits": 2, "group_size": GROUP, "axis": 0}  # noqa: RUF012 (never written)

    def _make(self, module: Any, weight: Tensor, device: torch.device, settings: Mapping[str, Any]) -> Any:
        config = module.hqq_base_quant_config(**settings)
        return module.HQQLinear(linear(weight, None), config, compute_dtype=weight.dtype, device=str(device))

    def hollow(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """hqq computes with plain tensors, also when it quantises."""
        self.check_shape(*weight.shape)
        return self.quantize(weight, bias, weight.device)

    def settings_of(self, layer: Any) -> dict[str, Any]:
        own = layer.quant_config["weight_quant_params"]
        return {name: own[name] for name in self.settings}

    def dequantize(self, layer: Any) -> Tensor:
        return layer.dequantize()

    def tensors(self, layer: Any) -> list[Tensor]:
        return [layer.W_q, layer.meta["scale"], layer.meta["zero"]]


KIND = _Int2(__name__)
