"""Ways of adapting a model, one file each: after `apply(model, method, …)` just what is trained needs gradients.

A file `<name>.py` has `apply(model, method, backward)`, which gets a frozen model and the settings, of a class in
`experiments.method_settings`, and makes trainable, or adds, what the method trains. Methods combine by name:
`lora+prefix_embed` is both, with the fields of both.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from experiments import method_settings, quantization
from experiments.layers import positions
from experiments.method_settings import Method, Prompt
from lora import io
from lora.config import InputError
from lora.model import trainable_parameters
from lora.variants import plus

Backward = Callable[[], None] | None  # runs forward and backward of the training loss on a few batches

# Under autocast these compute in bf16 from parameters of any precision; other modules want all of theirs in one.
MIXED = (nn.Linear, Conv1D, nn.Embedding)


def _parts(method: Mapping[str, Any]) -> list[tuple[str, ModuleType, Method]]:
    """Name, module and settings of each part."""
    found = method_settings.read(method)
    return [(name, importlib.import_module(f"{__name__}.{name}"), settings) for name, settings in found.items()]


def apply(model: nn.Module, method: Mapping[str, Any], heads: Sequence[str], backward: Backward = None) -> None:
    """Change `model`, in place, by the method of this name; the modules named in `heads` are trained with it.

    Trained parameters are in fp32. `backward` is for methods that start from gradients. Raises InputError for an
    unknown method or field, and for settings that the model cannot have.
    """
    parts = _parts(method)
    model.requires_grad_(False)
    for _, part, settings in parts:
        part.apply(model, settings, backward)
    _finish(model, heads)
    if (method["name"] == "frozen") == bool(trainable_parameters(model)):
        raise InputError(
            "method frozen is for language models: this one has a head to be trained, choose head_only"
            if method["name"] == "frozen"
            else "nothing would be trained: the method adds nothing, and the model has no head"
        )


def load(model: nn.Module, method: Mapping[str, Any], heads: Sequence[str], folder: Path) -> None:
    """Bring a freshly loaded `model` into the state that a run of `method` has stored in `folder`.

    Raises InputError as `apply` and `lora.io.load`.
    """
    model.requires_grad_(False)
    for name, part, settings in _parts(method):
        if name != "lora":  # the stored adapter says itself where its A and B are
            part.apply(model, settings, None)
    _finish(model, heads)
    io.load(model, folder, functools.partial(quantization.pretrained, model))


def _finish(model: nn.Module, heads: Sequence[str]) -> None:
    """Train the heads, and put what is trained into fp32."""
    for name in heads:
        model.get_submodule(name).requires_grad_(True)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        trained = [parameter for parameter in own if parameter.requires_grad]
        for parameter in trained if isinstance(module, MIXED) else own if trained else ():
            parameter.data = parameter.data.float()


def room(model: nn.Module, method: Mapping[str, Any]) -> int:
    """The most tokens of a text that `model` can read; a prefix method takes positions for its own."""
    prompts = (one for one in method_settings.read(method).values() if isinstance(one, Prompt))
    return positions(model) - sum(one.l_p + one.l_i for one in prompts)


def parameter_groups(
    model: nn.Module, method: Mapping[str, Any], heads: Sequence[str], lr: float, head_lr: float | None = None
) -> list[dict[str, Any]]:
    """Groups for the optimizer: all at `lr`, but the heads at `head_lr` if there is one, and LoRA+'s B faster."""
    lora = method_settings.lora(method)
    if lora is not None and lora.lr_ratio is not None:
        groups = plus.parameter_groups(model, lr, lora.lr_ratio)
    else:
        trained = list(trainable_parameters(model).values())
        groups = [{"params": trained, "lr": lr}] if trained else []
    if head_lr is None:
        return groups
    own = [parameter for name in heads for parameter in model.get_submodule(name).parameters()]
    taken = {id(parameter) for parameter in own}
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in taken]
    return [*(group for group in groups if group["params"]), {"params": own, "lr": head_lr}]
