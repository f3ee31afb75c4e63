"""Put stored adapters, and the parameters that were trained beside them, into a model: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lora.errors import InputError
from lora.model import attach, lora_layers
from lora.stored import Target
from lora.targets import child, layer_of, make_place
from lora.tensor_files import type_name
from lora.variants import USUAL, Weights


class Slot(NamedTuple):
    """A parameter or buffer of a model: `tensor` is `leaf` of `module`."""

    module: nn.Module
    leaf: str
    tensor: Tensor


def slots(model: nn.Module) -> dict[str, Slot]:
    """Name -> parameter or stored buffer. One that is tied is there under each of its names."""
    found: dict[str, Slot] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own: dict[str, Tensor] = {}
        own |= {leaf: value for leaf, value in module._parameters.items() if value is not None}
        buffers = {leaf: value for leaf, value in module._buffers.items() if value is not None}
        own |= {leaf: value for leaf, value in buffers.items() if leaf not in module._non_persistent_buffers_set}
        found |= {f"{name}.{leaf}".lstrip("."): Slot(module, leaf, value) for leaf, value in own.items()}
    return found


def adapters_of(model: nn.Module) -> dict[Target, tuple[Tensor, ...]]:
    """Every adapter of `model`, as an update of the pretrained W0, and its A, B and what its variant trains beside."""
    found: dict[Target, tuple[Tensor, ...]] = {}
    for name, layer in lora_layers(model):
        for part in layer.parts:
            w0 = layer.w0(part)
            d, k = w0.shape
            norm = w0.float().norm().item()
            own = layer.stored(part.name)
            target = Target(name, part.name, layer_of(name), len(own["A"]), part.scaling, (d, k), norm, part.variant)
            found[target] = tuple(own.values())
    return found


def remade_by(model: nn.Module) -> str | None:
    """The start that has made base weights of `model` anew, which are not the pretrained ones; None for all others."""
    return next((layer.start.name for _, layer in lora_layers(model) if layer.start.remakes), None)


@torch.no_grad()
def fill(
    model: nn.Module,
    adapters: Mapping[Target, tuple[Tensor, ...]],
    parameters: Mapping[str, Tensor],
    source: str,
    init: str = USUAL,
    pretrained: Weights | None = None,
    apart: Collection[str] = (),
) -> None:
    """Attach `adapters` (A, B and what is trained beside) to `model` and copy `parameters` into it. `init` and
    `pretrained` are of `attach`: some starts make base weights anew.

    Those of `parameters` that are named in `apart` become weights of their modules alone: what was tied to them keeps
    its pretrained values. All others are written where they are, into what is tied to them too.

    Raises InputError, naming `source`, if a module or parameter does not exist, a shape differs, two tensors are for
    one weight, or W0 is not the one trained on. Whatever is raised, the model is then as it was.
    """
    if any(lora_layers(model)):
        raise InputError(f"{source} does not fit this model: the model has LoRA adapters already: eject them first")
    for target, tensors in adapters.items():
        target.check([tensor.shape for tensor in tensors], source)
    there = slots(model)
    own = _apart(there, parameters, apart, source)
    _check(there, parameters, own, source)
    modules = {target.module: child(model, target.module) for target in adapters}
    before = {name: there[name].tensor.clone() for name in parameters if name not in own}
    try:
        _attach(model, adapters, source, init, pretrained)
        for name, tensor in parameters.items():
            slot = there[name]
            if name in own:
                value = tensor.to(slot.tensor.device, slot.tensor.dtype, copy=True)
                setattr(slot.module, slot.leaf, nn.Parameter(value, slot.tensor.requires_grad))
            else:
                slot.tensor.copy_(tensor)
    except BaseException:
        for name, module in modules.items():
            if module is not None:
                model.set_submodule(name, module)
        for name, value in before.items():
            there[name].tensor.copy_(value)
        for name in own:
            setattr(there[name].module, there[name].leaf, there[name].tensor)
        raise


def _apart(
    there: Mapping[str, Slot], parameters: Mapping[str, Tensor], apart: Collection[str], source: str
) -> list[str]:
    """The names in `apart` whose weights are tied to others. Raises InputError if it is the module that is shared."""
    names: dict[int, list[str]] = {}
    for name, slot in there.items():
        names.setdefault(id(slot.tensor), []).append(name)
    tied = {name for same in names.values() if len(same) > 1 for name in same}
    own = [
        name for name in parameters if name in apart and name in tied and isinstance(there[name].tensor, nn.Parameter)
    ]
    for name in own:
        slot = there[name]
        same = [other for other in names[id(slot.tensor)] if there[other].module is slot.module and other not in own]
        if same:
            raise InputError(
                f"{source} trained {name} apart from {same[0]}, but they are one module of this model: that cannot be "
                "loaded"
            )
    return own


def _check(there: Mapping[str, Slot], parameters: Mapping[str, Tensor], own: Collection[str], source: str) -> None:
    """Raises InputError if a parameter has no place here, or one place has two tensors that differ."""
    written: dict[int, str] = {}
    for name, tensor in parameters.items():
        if name not in there or there[name].tensor.shape != tensor.shape:
            has = f"has {tuple(there[name].tensor.shape)} there" if name in there else "has no such parameter"
            raise InputError(f"{source} is for another model: it trained {name} {tuple(tensor.shape)}, this one {has}"
                             f"{_resize(there, name, tensor)}")  # fmt: skip
        place = there[name].tensor
        if place.is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"{source}: {name} is stored as {type_name(tensor)}, but is {type_name(place)} in this model"
            )
        if name in own:
            continue
        other = written.setdefault(id(place), name)
        if not torch.equal(parameters[other], tensor):
            raise InputError(
                f"{source} has different values for {other} and {name}, which are one tied weight of this model: load "
                "it with tie_word_embeddings=False"
            )


def _resize(there: Mapping[str, Slot], name: str, tensor: Tensor) -> str:
    """What to do if an embedding has another number of rows: its vocabulary was enlarged before training."""
    if name not in there or tensor.ndim != 2 or there[name].tensor.ndim != 2:
        return ""
    rows, width = tensor.shape
    here, same = there[name].tensor.shape
    table = name.endswith(("lm_head.weight", "embed_out.weight")) or isinstance(there[name].module, nn.Embedding)
    return f": call model.resize_token_embeddings({rows}) first" if table and width == same and rows != here else ""


def _attach(
    model: nn.Module,
    adapters: Mapping[Target, tuple[Tensor, ...]],
    source: str,
    init: str,
    pretrained: Weights | None,
) -> None:
    try:
        places = [make_place(model, t.module, t.weight_type, t.r, t.scaling, t.variant) for t in adapters]
        attach(model, places, init=init, pretrained=pretrained)
    except InputError as error:
        raise InputError(f"{source} does not fit this model: {error}") from error
    here = {target.key: (target, ours) for target, ours in adapters_of(model).items()}
    for target, tensors in adapters.items():
        found, ours = here[target.key]
        same_base = not target.w0_norm or abs(found.w0_norm - target.w0_norm) <= 0.01 * target.w0_norm
        if found.shape != target.shape or not same_base:
            raise InputError(
                f"{source} is for another model: {target.key} was trained on a W0 of shape {target.shape} and norm"
                f" {target.w0_norm:.4g}, here it is {found.shape} and {found.w0_norm:.4g}"
            )
        for place, stored in zip(ours, tensors, strict=True):
            place.copy_(stored)
