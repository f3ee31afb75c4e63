"""Ways of adapting a model, one file each: after `apply(model, method, …)` just what is trained needs gradients.

A file `<name>.py` has FIELDS, the names of its settings, and `apply(model, method, backward)`, which gets a frozen
model and makes trainable, or adds, what the method trains. Methods combine by name: `lora+prefix_embed` is both, with
the fields of both.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from experiments import quantization
from experiments.layers import positions
from experiments.names import did_you_mean
from experiments.rules import size
from lora import io, plus
from lora.config import InputError
from lora.inject import trainable_parameters

Backward = Callable[[], None] | None  # runs forward and backward of the training loss on a few batches

JOINED = ("lora", "bitfit")  # what can be part of a combination, beside one method with a prefix
# Under autocast these compute in bf16 from parameters of any precision; other modules want all of theirs in one.
MIXED = (nn.Linear, Conv1D, nn.Embedding)


def _parts(method: Mapping[str, Any]) -> dict[str, ModuleType]:
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    names = str(method["name"]).split("+")
    for name in names:
        if name not in known:
            raise InputError(f"unknown method {name!r}{did_you_mean(name, known)} (several are joined by +)")
    rest = [name for name in names if name not in JOINED]
    joined = not rest or (len(rest) == 1 and rest[0].startswith("prefix_"))
    if len(names) > 1 and (not joined or len(set(names)) < len(names)):
        raise InputError(f"{method['name']}: only lora, bitfit and one of the prefix methods can be joined")
    parts = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    fields = {"name", *(field for part in parts.values() for field in part.FIELDS)}
    for field in method:
        if field not in fields:
            raise InputError(f"method {method['name']} has no field {field!r}: it has {', '.join(sorted(fields))}")
    return parts


def apply(model: nn.Module, method: Mapping[str, Any], heads: Sequence[str], backward: Backward = None) -> None:
    """Change `model`, in place, by the method of this name; the modules named in `heads` are trained with it.

    Trained parameters are in fp32. `backward` is for methods that start from gradients. Raises InputError for an
    unknown method or field, and for settings that the model cannot have.
    """
    parts = _parts(method)
    model.requires_grad_(False)
    for part in parts.values():
        part.apply(model, method, backward)
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
    for name, part in _parts(method).items():
        if name != "lora":  # the stored adapter says itself where its A and B are
            part.apply(model, method, None)
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
    return positions(model) - sum(size(method, field, 0) for field in ("l_p", "l_i") if field in method)


def parameter_groups(
    model: nn.Module, method: Mapping[str, Any], heads: Sequence[str], lr: float, head_lr: float | None = None
) -> list[dict[str, Any]]:
    """Groups for the optimizer: all at `lr`, but the heads at `head_lr` if there is one, and LoRA+'s B faster."""
    if method.get("lr_ratio") is not None:
        groups = plus.parameter_groups(model, lr, method["lr_ratio"])
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
