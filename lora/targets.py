"""Weight types q k v o up gate down -> modules of an architecture, and the rows of a fused projection that each has."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from typing import NamedTuple

from torch import nn

from lora import schemes
from lora.config import WEIGHT_TYPES, LoRAConfig
from lora.errors import InputError
from lora.fused import Matrix, Rows, queries, rows_of
from lora.layer import LoRALayer, Part, adaptable, shape
from lora.schemes import layer_of as layer_of
from lora.schemes import towers_of
from lora.variants import PLAIN

WHOLE = "all"  # the name of a part that covers every row of a module chosen by pattern
SHOWN = 6  # modules in a message


class Place(NamedTuple):
    """One adapter-to-be: a part of the module of this name. `layer` is None outside the numbered layers."""

    module: str
    layer: int | None
    part: Part


def _kind(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def child(module: nn.Module | None, path: str) -> nn.Module | None:
    """The module of this name inside another, or None if there is none."""
    for name in path.split(".") if path else ():
        module = module and module._modules.get(name)
    return module


def _is_linear(module: nn.Module) -> bool:
    """Whether a module is, or was before it was adapted, a matrix with outputs."""
    base = module.base if isinstance(module, LoRALayer) else module
    return adaptable(base) and not isinstance(base, nn.Embedding)


def _shape(module: nn.Module) -> tuple[int, int]:
    return shape(module.base if isinstance(module, LoRALayer) else module)


def parts_of(model: nn.Module, module: str) -> dict[str, Rows]:
    """Weight type -> its rows in the module of this name, in the order of the rows; empty for a module that is none.

    A fused projection has several types. One whose layout is not known has none.
    """
    types = schemes.types_of(module, lambda name: child(model, name) is not None)
    name, _, leaf = module.removesuffix(".linear").rpartition(".")
    own = child(model, module)
    if own is None or not types or not _is_linear(own):
        return {}
    outputs = (child(model, each) for each in schemes.outputs_of(name))
    out = next((_shape(found)[1] for found in outputs if found is not None and _is_linear(found)), 0)
    matrix = Matrix(child(model, name), _shape(own)[0], out, getattr(model, "config", None))
    if leaf == "q_proj":
        return {"q": queries(matrix)}
    if len(types) == 1:
        return {types[0]: slice(None)}
    return rows_of(leaf, matrix) or {}


def weight_types(model: nn.Module) -> tuple[str, ...]:
    """The weight types that a model has modules of, in the order of WEIGHT_TYPES."""
    found = {place.part.name for place in typed_places(model)}
    return tuple(name for name in WEIGHT_TYPES if name in found)


def weight_type_of(model: nn.Module, module: str) -> str:
    """The weight type that a whole module is, or WHOLE for a fused projection or a module that has none."""
    found = parts_of(model, module)
    return next((name for name, rows in found.items() if isinstance(rows, slice) and rows == slice(None)), WHOLE)


def make_place(model: nn.Module, module: str, weight_type: str, r: int, scaling: float, variant: str = PLAIN) -> Place:
    """The place of one adapter; a weight type that is a slice of a fused projection gets its rows."""
    rows = parts_of(model, module).get(weight_type, slice(None))
    return Place(module, layer_of(module), Part(weight_type, r, scaling, rows, variant))


def typed_places(model: nn.Module) -> list[Place]:
    """Every module of `model` that has weight types, a place of rank 1 for each type, in the order of the modules."""
    names = [name for name, module in model.named_modules() if adaptable(module)]
    types = [(name, weight_type, rows) for name in names for weight_type, rows in parts_of(model, name).items()]
    return [Place(name, layer_of(name), Part(weight_type, 1, 1.0, rows)) for name, weight_type, rows in types]


def types_by_name(module: str) -> list[str]:
    """The weight types of a module by its name alone, its model not being known: several for a fused projection, in
    the order of its rows, and none for a name of no scheme."""
    return list(schemes.types_of(module, schemes.by_name_alone))


def spread_over_heads(module: str) -> bool:
    """Whether a module, by its name, is a fused projection with each weight type's rows spread over the heads."""
    return schemes.SPREAD.search(module) is not None


def _looks_like_attention(model: nn.Module, names: list[str]) -> str:
    """Those of these modules that may be of attention, for a message, each once for all layers: `layers.*.attn.qkv`."""
    matrices = [name for name in names if _is_linear(model.get_submodule(name)) and schemes.ATTENTION.search(name)]
    found = list(dict.fromkeys(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name) for name in matrices))
    return ", ".join(found[:SHOWN]) + ", …" * (len(found) > SHOWN)


def _of_type(model: nn.Module, chosen: str, names: list[str], parts: dict[str, dict[str, Rows]]) -> list[str]:
    """The modules of a weight type, or of a tower's: `q`, `decoder.q`. `names` are those that LoRA can adapt, `parts`
    what `parts_of` says of each."""
    tower, _, weight_type = chosen.rpartition(".")
    kind, has = _kind(model), {own for found in parts.values() for own in found}
    left = _looks_like_attention(model, [name for name in names if not parts[name]])
    if not has:
        looks = f"these look like attention: {left}" if left else "none looks like attention"
        raise InputError(f"weight types are not known for a {kind} model: name modules by pattern ({looks})")
    if weight_type not in has:
        types = ", ".join(name for name in WEIGHT_TYPES if name in has)
        more = (
            f" (these look like attention too, name them by pattern: {left})" if left and weight_type in "qkvo" else ""
        )
        raise InputError(f"a {kind} model has no weight type {weight_type!r}: it has {types}{more}")
    inside = [name for name in names if not tower or tower in towers_of(name)]
    for name in inside:
        if not parts[name] and weight_type in schemes.types_of(name, lambda other: child(model, other) is not None):
            raise InputError(
                f"{name} of a {kind} model has {weight_type} in one matrix with others, in an order that is not known: "
                "name it by pattern, to adapt all of it"
            )
    found = [name for name in inside if weight_type in parts[name]]
    if not found:
        towers = dict.fromkeys(own for name in names if weight_type in parts[name] for own in towers_of(name))
        there = f"there is one of {', '.join(towers)}" if towers else f"choose {weight_type}"
        raise InputError(f"a {kind} model has no {weight_type} in a tower {tower!r}: {there}")
    return found


def find_places(model: nn.Module, config: LoRAConfig) -> list[Place]:
    """Every place of `model` that `config` adapts, in the order of the model's modules.

    Raises InputError if a weight type is unknown for this model, if a type, pattern or layer matches nothing, or if two
    overlap.
    """
    names = [name for name, module in model.named_modules() if name and adaptable(module)]
    depth = 1 + max((layer_of(name) or 0 for name in names), default=0)
    outside = [layer for layer in config.layers or () if not 0 <= layer < depth]
    if outside:
        raise InputError(f"layers {outside} do not exist: the model has layers 0 to {depth - 1}")
    parts = {name: parts_of(model, name) for name in names} if config.weight_types else {}
    places: list[Place] = []
    for chosen in config.names:
        is_type = chosen in config.weight_types
        found = _of_type(model, chosen, names, parts) if is_type else fnmatch.filter(names, chosen)
        found = [name for name in found if config.layers is None or layer_of(name) in config.layers]
        if not found:
            some = ", ".join(names[:3]) or "none"
            raise InputError(f"{chosen!r} matches no module that LoRA can adapt (the model has, for example, {some})")
        r, scaling = config.rank(chosen), config.scale(chosen)
        own = chosen.rpartition(".")[2] if is_type else WHOLE
        for name in found:
            rows = parts[name][own] if is_type else slice(None)
            places.append(Place(name, layer_of(name), Part(own, r, scaling, rows, config.variant)))
    adapted = Counter(place.module for place in places)
    parted = Counter((place.module, place.part.name) for place in places)
    for place in places:
        module, own = place.module, place.part.name
        if parted[module, own] > 1 and own != WHOLE:
            raise InputError(f"{own} of module {module} is chosen twice: by {own} and by towers: choose one")
        if own == WHOLE and adapted[module] > 1:
            raise InputError(f"module {module} is chosen twice: by a pattern, and by another or a weight type")
    order = {name: index for index, name in enumerate(names)}
    return sorted(places, key=lambda place: order[place.module])
