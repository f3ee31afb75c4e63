"""Quantised layers of fake tensors: the libraries' own, as they are after quantising, which needs values.

Their forward and backward passes run as they are, and with them what they keep and what they make for a moment.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from experiments import quantization
from lora import quantized
from lora.config import InputError
from lora.layer import turned
from lora.libraries import library
from lora.quantized.int8 import OUTLIER


def quantize(model: PreTrainedModel, kind: str) -> None:
    """Put layers of `kind` in place of those that `experiments.quantization` quantises.

    Raises InputError, naming the layer, for a kind or a shape that cannot be, and if the library is not installed.
    """
    if kind not in quantized.KINDS:
        raise InputError(f"model.quantization = {kind}: choose from {', '.join(quantized.KINDS)}, or null")
    for name in quantization.quantized_modules(model):
        module: Any = model.get_submodule(name)
        weight = turned(module, module.weight.detach())
        try:
            layer = _layer(weight, module.bias, kind)
        except InputError as error:
            raise InputError(f"model.quantization = {kind}: {name}: {error}") from error
        model.set_submodule(name, layer.train(module.training))


def tensors(model: nn.Module) -> list[Tensor]:
    """What quantised layers hold of their weights, some of it in no parameter."""
    layers = [module for module in model.modules() if quantized.is_quantized(module)]
    return [tensor for layer in layers for tensor in quantized.tensors(layer)]


def _layer(weight: Tensor, bias: Tensor | None, kind: str) -> nn.Module:
    if kind == "int2":  # hqq computes with plain tensors, also when it quantises
        return quantized.quantize(weight.contiguous(), bias, kind)
    d, k = weight.shape
    quantized.KINDS[kind].check_shape(d, k)
    layer = _nf4(d, k, weight.dtype) if kind == "nf4" else _int8(d, k)
    layer.compute_dtype = weight.dtype
    layer.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return layer


# The parameters of bitsandbytes are tensors of classes of its own, which cannot be fake: ordinary ones stand for them.


def _nf4(d: int, k: int, dtype: torch.dtype) -> Any:
    """A Linear4bit with a double quantisation: codes, and scales in 8 bits with scales of their own."""
    state = library("bitsandbytes.functional", "nf4").QuantState
    groups = math.ceil(d * k / quantized.GROUP)
    scales = state(torch.empty(math.ceil(groups / 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32)
    layer = _without_weight("Linear4bit", d, k)
    layer.weight = nn.Parameter(torch.empty(math.ceil(d * k / 2), 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = state(
        torch.empty(groups, dtype=torch.uint8), torch.Size((d, k)), torch.empty(16), quantized.GROUP, "nf4", dtype,
        torch.empty(()), scales,
    )  # fmt: skip
    layer.compute_type_is_set, layer.support_avx512bf16_for_cpu = True, False
    return layer


def _int8(d: int, k: int) -> Any:
    """A Linear8bitLt after its first forward pass: codes, and a scale for each output."""
    layer = _without_weight("Linear8bitLt", d, k)
    layer.weight = nn.Parameter(torch.empty(d, k, dtype=torch.int8), requires_grad=False)
    layer.weight.CB = None  # it has been moved to the state
    layer.state = library("bitsandbytes", "int8").MatmulLtState()
    layer.state.threshold, layer.state.has_fp16_weights = OUTLIER, False
    layer.state.CB, layer.state.SCB = layer.weight.data, torch.empty(d)
    return layer


def _without_weight(name: str, d: int, k: int) -> Any:
    kind = getattr(library("bitsandbytes.nn", name), name)
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = k, d
    return layer
