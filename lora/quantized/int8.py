"""A byte a weight and a scale an output, by bitsandbytes (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339).

x is rounded too, on a GPU always, on a CPU outside of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora.errors import library
from lora.quantized import Quantization

OUTLIER = 6.0  # inputs above it are not rounded, as in the paper


class _Int8(Quantization):
    """bitsandbytes' Linear8bitLt. Where nothing else is known it computes in fp16."""

    layer, module = "Linear8bitLt", "bitsandbytes.nn"
    settings = {"threshold": OUTLIER}  # noqa: RUF012 (never written)

    def _make(self, module: Any, weight: Tensor, device: torch.device, settings: Mapping[str, Any]) -> Any:
        d, k = weight.shape
        made = module.Linear8bitLt(k, d, bias=False, has_fp16_weights=False, device="meta", **settings)
        # A weight is quantised on its way from the CPU.
        made.weight = module.Int8Params(weight.cpu(), requires_grad=False).to(device)
        made.compute_dtype = weight.dtype
        return made

    def _hollow(self, module: Any, d: int, k: int, dtype: torch.dtype) -> Any:
        made = super()._hollow(module, d, k, dtype)
        made.weight = nn.Parameter(torch.empty(d, k, dtype=torch.int8), requires_grad=False)
        made.weight.CB = None  # it has been moved to the state
        made.state = library("bitsandbytes", self.name).MatmulLtState()
        made.state.threshold, made.state.has_fp16_weights = OUTLIER, False
        made.state.CB, made.state.SCB = made.weight.data, torch.empty(d)
        return made

    def settings_of(self, layer: Any) -> dict[str, Any]:
        return {"threshold": layer.state.threshold}

    def dequantize(self, layer: Any) -> Tensor:
        codes, scales = self.tensors(layer)
        return (codes.float() * (scales / 127)[:, None]).to(self.dtype(layer))

    def tensors(self, layer: Any) -> list[Tensor]:
        """Codes (d, k) and scales (d,), which the first forward pass moves from the weight to the layer."""
        place = layer.state if layer.weight.CB is None else layer.weight
        return [place.CB, place.SCB]


KIND = _Int8(__name__)
