"""model.quantization: the frozen linear layers of a pretrained body in few bits (`lora.quantized`)."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lora import quantized
from lora.config import InputError
from lora.layer import adaptable, shape, turned
from lora.targets import layer_of


def quantized_modules(model: nn.Module) -> list[str]:
    """The modules of `model`, not yet quantised and maybe on the meta device, that model.quantization quantises: every
    Linear and Conv1D in the numbered layers of the pretrained body.

    Embeddings, norms, biases, poolers, the output layer and heads stay as they are, and so do modules that transformers
    keeps in fp32 (T5's wo), and weights that are in no Linear (the experts of Mixtral).
    """
    body = getattr(model, "base_model", model)
    inside, kept = set(body.modules()), set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return [
        name
        for name, module in model.named_modules()
        if module in inside
        and isinstance(module, nn.Linear | Conv1D)
        and adaptable(module)
        and layer_of(name) is not None
        and not kept.intersection(name.split("."))
    ]


def quantize(model: PreTrainedModel, kind: str, device: torch.device) -> None:
    """Quantise the layers of `quantized_modules` in place, onto `device`, one after the other: where that is a GPU, it
    never has one of them in full.

    Raises InputError, naming the layer, for a kind, a device or a shape that cannot be, or if there is no such layer.
    """
    setting = f"model.quantization = {kind}"
    if kind in quantized.KINDS and device.type not in ("cpu", "cuda"):
        raise InputError(f"{setting} runs on cpu and cuda, but not on {device.type}: give runtime.device=cpu")
    if not replace_layers(model, kind, functools.partial(quantized.quantize, kind=kind, device=device)):
        raise InputError(f"{setting}: a {model.config.model_type} model has no linear layers of its own to quantise")


def replace_layers(model: PreTrainedModel, kind: str, make: Callable[[Tensor, Tensor | None], nn.Module]) -> list[str]:
    """Put layers of `kind`, made of weight (d, k) and bias, in place of those of `quantized_modules`, which are
    returned. Raises InputError, naming the layer, for a kind or a shape that cannot be."""
    setting = f"model.quantization = {kind}"
    if kind not in quantized.KINDS:
        raise InputError(f"{setting}: choose from {', '.join(quantized.KINDS)}, or null")
    names = quantized_modules(model)
    for name in names:
        module: Any = model.get_submodule(name)
        try:
            layer = make(turned(module, module.weight.detach()).contiguous(), module.bias)
        except InputError as error:
            raise InputError(f"{setting}: {name}: {error}") from error
        model.set_submodule(name, layer.train(module.training))
    return names


def pretrained(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights (d, k) before quantisation of the layers of `model` that are quantised, by module, read from where
    the model is from. They are all of them in memory, on the CPU, while the caller holds them."""
    with torch.random.fork_rng(devices=[]):  # a head is drawn too
        twin = type(model).from_pretrained(
            model.name_or_path, config=copy.deepcopy(model.config), dtype=model.dtype, ignore_mismatched_sizes=True
        )
    modules: dict[str, Any] = dict(twin.named_modules())
    return {name: turned(modules[name], modules[name].weight.detach()) for name in quantized_modules(twin)}


class Size(NamedTuple):
    """Numbers, and the bytes that they are held in."""

    numbers: int
    bytes: int

    @property
    def bits(self) -> float:
        """Bits a number."""
        return 8 * self.bytes / self.numbers


def layers_size(model: nn.Module) -> Size:
    """Of the weights of the layers that are quantised, as many numbers as they stand for, their bytes with scales and
    tables; or, if none is, that could be."""
    layers = _quantized(model)
    if not layers:
        plain = [model.get_submodule(name).get_parameter("weight") for name in quantized_modules(model)]
        return Size(sum(weight.numel() for weight in plain), sum(weight.nbytes for weight in plain))
    return Size(sum(math.prod(shape(layer)) for layer in layers), sum(tensor.nbytes for tensor in tensors(model)))


def tensors(model: nn.Module) -> list[Tensor]:
    """What quantised layers hold of their weights, some of it in no parameter."""
    return [tensor for layer in _quantized(model) for tensor in quantized.tensors(layer)]


def _quantized(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if quantized.is_quantized(module)]


def size(model: nn.Module) -> Size:
    """Of all parameters of `model`, and of the weights that are quantised."""
    held = [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or not quantized.is_quantized(module)
    ]
    unique = {id(parameter): parameter for parameter in held}.values()
    few = layers_size(model) if _quantized(model) else Size(0, 0)
    numbers = few.numbers + sum(parameter.numel() for parameter in unique)
    return Size(numbers, few.bytes + sum(parameter.nbytes for parameter in unique))
