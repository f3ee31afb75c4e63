"""Linear layers that hold a frozen weight in few bits: how they are made, read and counted.

    nf4    4-bit codes for normal weights in blocks of 64 inputs, whose scales are quantised again (QLoRA, Dettmers et
           al. 2023, arXiv 2305.14314), by bitsandbytes
    int8   a byte a weight and a scale an output (LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339), by bitsandbytes
    int2   2-bit codes in groups of 64 outputs, with a scale and a zero point each (HQQ, Badri and Shaji 2023), by hqq

Each computes h = W0 x + bias, where W0 (d, k) is what its codes stand for: `dequantize`. int8 rounds x too, on a GPU
always, on a CPU outside of training. The libraries are imported when a layer is made or read. Layers that they have
made elsewhere, with other settings, are read and made again all the same.
"""

from __future__ import annotations

import importlib
import logging
import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lora.config import RESIDUAL_INITS, InputError

# It warns of missing extras when peft or transformers import it, and in every forward pass of int8 that x is rounded.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

GROUP = 64  # weights that share a scale, in nf4 and int2
OUTLIER = 6.0  # inputs of int8 above it are not rounded, as in the paper


class Kind(NamedTuple):
    """A way to hold a weight: the class of its layers, its package and module, and settings of layers made here."""

    layer: str
    package: str
    module: str
    settings: dict[str, Any]


KINDS = {
    "nf4": Kind(
        "Linear4bit",
        "bitsandbytes",
        "bitsandbytes.nn",
        {"quant_type": "nf4", "blocksize": GROUP, "compress_statistics": True},
    ),
    "int8": Kind("Linear8bitLt", "bitsandbytes", "bitsandbytes.nn", {"threshold": OUTLIER}),
    "int2": Kind("HQQLinear", "hqq", "hqq.core.quantize", {"nbits": 2, "group_size": GROUP, "axis": 0}),
}


def _kind(layer: nn.Module) -> str | None:
    """The kind of a quantised layer by its class, of whatever settings; None for all other modules."""
    classes = {cls.__name__ for cls in type(layer).__mro__}
    return next((name for name, kind in KINDS.items() if kind.layer in classes), None)


def is_quantized(module: nn.Module) -> bool:
    """True for a layer of one of KINDS."""
    return _kind(module) is not None


def check_start(base: nn.Module, init: str) -> None:
    """Raises InputError for an init that cannot be on this module: some need to change its weight, loftq to quantise
    it."""
    if is_quantized(base) and init in RESIDUAL_INITS:
        raise InputError(
            f"init {init} takes its start out of the base weight, which is quantised here and cannot hold the rest "
            "exactly: choose loftq, or a start at B = 0"
        )
    if init == "loftq" and not is_quantized(base):
        raise InputError(
            f"init loftq starts from what quantisation loses, but this {type(base).__name__} is not quantised: "
            "quantise the model, or choose another init"
        )


def _library(kind: str) -> Any:
    try:
        return importlib.import_module(KINDS[kind].module)
    except ImportError as error:
        package = KINDS[kind].package
        raise InputError(f"{kind} needs the package {package} ({error}): pip install {package}") from error


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen nn.Linear of this very weight (d, k) and bias (d,)."""
    d, k = weight.shape
    made = nn.Linear(k, d, bias=False, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


def quantize(weight: Tensor, bias: Tensor | None, kind: str, device: torch.device | None = None) -> nn.Module:
    """A layer of `kind`, one of KINDS, of a weight (d, k) and a bias (d,), on `device` (None: the weight's own). It
    computes in the weight's precision.

    Raises InputError if the library is not installed, or if GROUP divides not d (int2) or k (nf4).
    """
    d, k = weight.shape
    for own, count, what in (("nf4", k, "inputs"), ("int2", d, "outputs")):
        if kind == own and count % GROUP:
            raise InputError(f"{kind} takes weights in groups of {GROUP} {what}, but there are {count}: choose int8")
    return _make(weight, bias, kind, KINDS[kind].settings, device or weight.device)


@torch.no_grad()
def _make(weight: Tensor, bias: Tensor | None, kind: str, settings: dict[str, Any], device: torch.device) -> nn.Module:
    library, (d, k) = _library(kind), weight.shape
    layer: Any
    if kind == "nf4":
        layer = library.Linear4bit(k, d, bias=False, compute_dtype=weight.dtype, device="meta")
        layer.weight = library.Params4bit(weight, requires_grad=False, module=layer, **settings).to(device)
    elif kind == "int8":
        layer = library.Linear8bitLt(k, d, bias=False, has_fp16_weights=False, device="meta", **settings)
        # A weight is quantised on its way from the CPU.
        layer.weight = library.Int8Params(weight.cpu(), requires_grad=False).to(device)
        layer.compute_dtype = weight.dtype
    else:
        config = library.hqq_base_quant_config(**settings)
        layer = library.HQQLinear(linear(weight, None), config, compute_dtype=weight.dtype, device=str(device))
    layer.bias = bias if bias is None else nn.Parameter(bias.detach().to(device), requires_grad=False)
    return check(layer)


def requantize(layer: Any, weight: Tensor) -> nn.Module:
    """A layer as `layer` is, of the same kind and settings, bias and device, that holds `weight` (d, k) instead."""
    kind = str(_kind(layer))
    if kind == "nf4":
        settings = {name: getattr(layer.weight, name) for name in KINDS[kind].settings}
    elif kind == "int8":
        settings = {"threshold": layer.state.threshold}
    else:
        own = layer.quant_config["weight_quant_params"]
        settings = {name: own[name] for name in KINDS[kind].settings}
    made = _make(weight.to(_dtype(layer)), layer.bias, kind, settings, weight.device)
    return made.train(layer.training)


def _dtype(layer: Any) -> torch.dtype:
    """The precision in which a layer computes; that of LLM.int8(), where nothing else is known, is fp16."""
    dtype: torch.dtype | None = getattr(layer, "compute_dtype", None)
    return dtype or (layer.weight.quant_state.dtype if _kind(layer) == "nf4" else torch.float16)


def check(layer: Any) -> nn.Module:
    """The quantised `layer`, and whether gradients pass through it and its codes are read rightly.

    bitsandbytes 0.50 fails in both with 4-bit layers on a CPU. One with AVX512-BF16 packs a layer anew, for good, in
    its first forward pass without gradients: scales are coarser and there is no gradient from then on. That is switched
    off here. And blocks over the end of a row are read wrongly. Raises InputError if either has happened.
    """
    if _kind(layer) == "nf4" and layer.weight.device.type == "cpu":
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
    checked: nn.Module = layer
    return checked


@torch.no_grad()
def dequantize(layer: Any) -> Tensor:
    """W0 (d, k) of a quantised layer, in the precision in which it computes."""
    kind = _kind(layer)
    if kind == "nf4":
        functional = importlib.import_module("bitsandbytes.functional")
        weight: Tensor = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return weight.to(_dtype(layer))
    if kind == "int8":
        codes, scales = _int8(layer)
        return (codes.float() * (scales / 127)[:, None]).to(_dtype(layer))
    return cast(Tensor, layer.dequantize())


def _int8(layer: Any) -> tuple[Tensor, Tensor]:
    """Codes (d, k) and scales (d,), which the first forward pass moves from the weight to the layer."""
    place = layer.state if layer.weight.CB is None else layer.weight
    return place.CB, place.SCB


def tensors(layer: Any) -> list[Tensor]:
    """All that a quantised layer stores of its weight: codes, scales, and tables."""
    kind = _kind(layer)
    if kind == "nf4":
        state = layer.weight.quant_state
        again = [] if state.state2 is None else [state.offset, state.state2.absmax, state.state2.code]
        return [layer.weight.data, state.absmax, state.code, *again]
    if kind == "int8":
        return list(_int8(layer))
    return [layer.W_q, layer.meta["scale"], layer.meta["zero"]]


def stored_bytes(kind: str, d: int, k: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of all `tensors` of a weight (d, k) in a layer of `kind`; int2 has its scales and zeros in `dtype`, in
    which the layer computes."""
    size, groups = d * k, math.ceil(d * k / GROUP)
    if kind == "nf4":
        # A byte for each scale, an fp32 for 256 of these; a table of each, and the mean of the scales, in fp32.
        return math.ceil(size / 2) + groups + 4 * (math.ceil(groups / 256) + 256 + 16 + 1)
    if kind == "int8":
        return size + 4 * d
    return size // 4 + 2 * groups * dtype.itemsize
