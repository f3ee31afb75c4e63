"""Weight types q k v o up gate down -> modules of an architecture, and the rows of a fused projection that each has."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lora.config import InputError, LoRAConfig
from lora.layer import Part, adaptable

WHOLE = "all"  # the name of a part that covers every row of a module chosen by pattern
Rows = Callable[[Any], slice | Tensor]  # transformers config -> rows
Table = dict[
    str, tuple[str, Rows | None]
]  # weight type -> (end of the module's name, a regular expression; rows if fused)


def _below(*sizes: int) -> list[slice]:
    """Blocks of rows one below the other."""
    return [slice(stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]


def _per_head(config: Any) -> Sequence[Tensor]:
    """GPT-NeoX's and BLOOM's query_key_value: within each head q, then k, then v."""
    heads = config.num_attention_heads
    return torch.arange(3 * config.hidden_size).view(heads, 3, -1).transpose(0, 1).flatten(1).unbind()


def _grouped(config: Any) -> Sequence[slice]:
    """Phi-3's qkv_proj: all heads of q, then the fewer key heads, then as many value heads."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv = config.num_attention_heads * head, config.num_key_value_heads * head
    return _below(q, kv, kv)


def _fused(module: str, rows: Callable[[Any], Sequence[slice | Tensor]], *weight_types: str) -> Table:
    def part(index: int) -> Rows:
        return lambda config: rows(config)[index]

    return {weight_type: (module, part(index)) for index, weight_type in enumerate(weight_types)}


def _plain(**modules: str) -> Table:
    return {weight_type: (module, None) for weight_type, module in modules.items()}


_BERT = _plain(
    q=r"attention\.self\.query",
    k=r"attention\.self\.key",
    v=r"attention\.self\.value",
    o=r"attention\.output\.dense",
    up=r"intermediate\.dense",
    down=r"\d+\.output\.dense",
)
_DEBERTA = _BERT | _plain(q=r"self\.query_proj", k=r"self\.key_proj", v=r"self\.value_proj")
_QKV = _plain(**{x: rf"self_attn\.{x}_proj" for x in "qkv"})
_LLAMA = _QKV | _plain(o=r"self_attn\.o_proj", up=r"mlp\.up_proj", gate=r"mlp\.gate_proj", down=r"mlp\.down_proj")
_SPREAD = r"(self_)?attention\.query_key_value"
_NEOX = _fused(_SPREAD, _per_head, "q", "k", "v") | _plain(
    o=r"(self_)?attention\.dense", up=r"mlp\.dense_h_to_4h", down=r"mlp\.dense_4h_to_h"
)

ARCHITECTURES: dict[str, Table] = {  # by the model_type of the transformers config
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "olmo2", "smollm3"), _LLAMA),
    **dict.fromkeys(("gpt_neox", "bloom"), _NEOX),
    "deberta-v2": _DEBERTA,
    "gpt2": _fused(r"attn\.c_attn", lambda config: _below(*3 * [config.hidden_size]), "q", "k", "v")
    | _plain(o=r"attn\.c_proj", up=r"mlp\.c_fc", down=r"mlp\.c_proj"),
    "opt": _QKV | _plain(o=r"self_attn\.out_proj", up="fc1", down="fc2"),
    "phi3": _fused(r"self_attn\.qkv_proj", _grouped, "q", "k", "v")
    | _fused(r"mlp\.gate_up_proj", lambda config: _below(*2 * [config.intermediate_size]), "gate", "up")
    | _plain(o=r"self_attn\.o_proj", down=r"mlp\.down_proj"),
    "t5": _plain(
        **{x: rf"(SelfAttention|EncDecAttention)\.{x}" for x in "qkvo"},
        up=r"DenseReluDense\.(wi|wi_1)",
        gate=r"DenseReluDense\.wi_0",
        down=r"DenseReluDense\.wo",
    ),
}


class Place(NamedTuple):
    """One adapter-to-be: a part of the module of this name. `layer` is None outside the numbered layers."""

    module: str
    layer: int | None
    part: Part


def layer_of(module: str) -> int | None:
    """The layer a module lies in: the first number in its name (`bert.encoder.layer.3.attention…` -> 3)."""
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", module)
    return int(number.group(1)) if number else None


def _kind(model: nn.Module) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def _table(model: nn.Module) -> Table:
    return ARCHITECTURES.get(_kind(model), {})


def _is(module: str, ending: str) -> bool:
    return re.search(rf"(^|\.){ending}$", module) is not None


def weight_type_of(model: nn.Module, module: str) -> str:
    """The weight type that a whole module is, or WHOLE for a fused projection or a module outside the table."""
    types = (name for name, (ending, rows) in _table(model).items() if rows is None and _is(module, ending))
    return next(types, WHOLE)


def make_place(model: nn.Module, module: str, weight_type: str, r: int, scaling: float, dora: bool = False) -> Place:
    """The place of one adapter; a weight type that is a slice of a fused projection gets its rows."""
    _, rows = _table(model).get(weight_type, ("", None))
    part = Part(weight_type, r, scaling, rows(model.config) if rows else slice(None), dora)
    return Place(module, layer_of(module), part)


def _modules_of_type(model: nn.Module, weight_type: str, names: list[str]) -> list[str]:
    kind, table = _kind(model), _table(model)
    if not table:
        known = ", ".join(sorted(ARCHITECTURES))
        raise InputError(f"weight types are not known for a {kind} model: name modules by pattern (known: {known})")
    if weight_type not in table:
        raise InputError(f"a {kind} model has no weight type {weight_type!r}: it has {', '.join(table)}")
    return [name for name in names if _is(name, table[weight_type][0])]


def typed_places(model: nn.Module) -> list[Place]:
    """Every module of `model` that has weight types, a place of rank 1 for each type, in the order of the modules."""
    names = [name for name, module in model.named_modules() if adaptable(module)]
    types = [(name, x) for name in names for x, (ending, _) in _table(model).items() if _is(name, ending)]
    return [make_place(model, name, weight_type, 1, 1.0) for name, weight_type in types]


def types_by_name(module: str) -> list[str]:
    """The weight types of a module by its name alone, its model not being known: several for a fused projection, in
    the order of its rows, and none for a name of no architecture in the tables."""
    tables = (table for table in ARCHITECTURES.values() if any(_is(module, ending) for ending, _ in table.values()))
    return [weight_type for weight_type, (ending, _) in next(tables, {}).items() if _is(module, ending)]


def spread_over_heads(module: str) -> bool:
    """Whether a module, by its name, is a fused projection with each weight type's rows spread over the heads."""
    return _is(module, _SPREAD)


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
    places: list[Place] = []
    for chosen in config.names:
        is_type = chosen in config.weight_types
        found = _modules_of_type(model, chosen, names) if is_type else fnmatch.filter(names, chosen)
        found = [name for name in found if config.layers is None or layer_of(name) in config.layers]
        if not found:
            some = ", ".join(names[:3]) or "none"
            raise InputError(f"{chosen!r} matches no module that LoRA can adapt (the model has, for example, {some})")
        r, scaling = config.rank(chosen), config.scale(chosen)
        places += [make_place(model, name, chosen if is_type else WHOLE, r, scaling, config.dora) for name in found]
    adapted = [place.module for place in places]
    for place in places:
        if place.part.name == WHOLE and adapted.count(place.module) > 1:
            raise InputError(f"module {place.module} is chosen twice: by a pattern, and by another or a weight type")
    return sorted(places, key=lambda place: names.index(place.module))
