"""Write the adapters of a model as a peft folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lora.errors import InputError
from lora.fill import remade_by, slots
from lora.formats.keys import PREFIX
from lora.formats.peft import PEFT_WEIGHTS
from lora.formats.peft_config import PEFT_CONFIG
from lora.layer import shape
from lora.model import base_parameters, lora_layers
from lora.variants import Update, chosen


class Whole(NamedTuple):
    """The adapter of a whole module: A (r, k), B (d, r) and the scaling of B A. `embedding`: of an embedding, of which
    peft has names of their own. `beside`: what a variant trains beside, by peft's names."""

    A: Tensor
    B: Tensor
    scaling: float
    embedding: bool = False
    beside: Mapping[str, Tensor] = MappingProxyType({})


@torch.no_grad()
def save_peft(model: nn.Module, folder: Path | str, base_model: str = "") -> None:
    """Write the adapters and trained heads of `model` as a peft folder, which `peft.PeftModel.from_pretrained` opens.

    Slices of a fused projection become one adapter of all of it: the A's one below the other, each B in its own rows.
    Adapters with a residual start (pissa, lora_ga) become ordinary LoRA on the pretrained W0, as in `lora.io`.

    Raises InputError if there are no adapters, if they are of several variants or one that peft has not, if their start
    has made base weights anew (loftq), or if what is trained beside them is no module that peft can store.
    """
    folder, layers = Path(folder), dict(lora_layers(model))
    if not layers:
        raise InputError("the model has no LoRA adapters to save")
    if init := remade_by(model):
        raise InputError(
            f"adapters that started from {init} belong to weights that it has quantised anew, which a peft folder does "
            "not hold: save them with lora.io.save, or merge them and save the model"
        )
    updates = {part.variant: chosen(Update, part.variant) for layer in layers.values() for part in layer.parts}
    if len(updates) > 1:
        titles = " and others ".join(update.title for update in updates.values())
        raise InputError(f"peft cannot store a model of which some adapters are {titles}")
    (update,) = updates.values()
    if update.peft is None:
        raise InputError(f"peft has no {update.title}: save the adapters with lora.io.save, or merge them")
    modules: dict[str, Whole] = {}
    for name, layer in layers.items():
        parts = [(*layer.matrices(part.name), part.scaling, part.rows) for part in layer.parts]
        whole = join(parts, shape(layer.base)[0])._replace(embedding=isinstance(layer.base, nn.Embedding))
        beside = update.start(layer.pretrained())  # of all rows: those without an adapter keep their start
        for side in update.peft.sides:
            for part in layer.parts:
                beside[side][part.rows] = layer.trained(part.name)[side]
        stored_names = update.peft.sides
        modules[name] = whole._replace(beside={stored_names[side]: beside[side] for side in stored_names})
    heads, tied = _heads(model, layers)
    parameters: dict[str, Tensor] = {}
    for head in [*heads, *tied]:
        stored = model.get_submodule(head).state_dict()
        parameters |= {f"{head}.{key}": value.clone() for key, value in stored.items()}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "target_modules": sorted(layers),
        "rank_pattern": {pattern(name): len(whole.A) for name, whole in modules.items()},
        "alpha_pattern": {pattern(name): whole.scaling * len(whole.A) for name, whole in modules.items()},
        "use_dora": False,
        **({update.peft.option: True} if update.peft.option else {}),
        "modules_to_save": heads or None,
        "ensure_weight_tying": bool(tied),
        "inference_mode": True,
    }
    write(folder, modules, parameters, config)


def pattern(module: str) -> str:
    """The key of rank_pattern and alpha_pattern that is this module alone."""
    return f"^{re.escape(module)}"


def join(parts: Sequence[tuple[Tensor, Tensor, float, slice | Tensor]], d: int) -> Whole:
    """One adapter of all d rows of a module from those of its parts, each A (r, k), B (rows, r), the scaling and which
    rows: the A's one below the other, each B in its own rows, with the scaling of the first that has one."""
    first = next((scaling for _, _, scaling, _ in parts if scaling), 1.0)
    A = torch.cat([A for A, *_ in parts])
    B = A.new_zeros(d, len(A))
    columns = torch.split(B, [len(A) for A, *_ in parts], dim=1)  # views: what is written here is written in B
    for (_, own, scaling, rows), column in zip(parts, columns, strict=True):
        column[rows] = own * (scaling / first)
    return Whole(A, B, first)


def write(
    folder: Path, modules: Mapping[str, Whole], parameters: Mapping[str, Tensor], config: Mapping[str, Any]
) -> None:
    """Write a peft folder, which is made, without a model: the adapters by module, what else was trained by its name in
    the model, and adapter_config.json, which must agree with them."""
    tensors: dict[str, Tensor] = {}
    for name, whole in modules.items():
        kind, ending = ("lora_embedding", "") if whole.embedding else ("lora", ".weight")
        tensors |= {f"{PREFIX}{name}.{kind}_{side}{ending}": value for side, value in (("A", whole.A), ("B", whole.B))}
        tensors |= {f"{PREFIX}{name}.{stored}": value for stored, value in whole.beside.items()}
    for name, value in parameters.items():
        module, _, leaf = name.rpartition(".")
        tensors[f"{PREFIX}{module}.base_layer.{leaf}" if module in modules else f"{PREFIX}{name}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=1))
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / PEFT_WEIGHTS)


def _heads(model: nn.Module, layers: Mapping[str, nn.Module]) -> tuple[list[str], list[str]]:
    """The modules that are trained beside the adapters, and those that are tied to them.

    Raises InputError if one is none that peft can store and find again.
    """
    trained = [name for name, parameter in base_parameters(model).items() if parameter.requires_grad]
    heads = sorted({name.rpartition(".")[0] for name in trained})
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for head in heads:
        inside = [name for name in layers if name == head or f".{name}.".find(f".{head}.") >= 0]
        if not head or inside:
            raise InputError(
                f"peft cannot store {head or trained[0]!r}, trained beside the adapters: only whole modules"
                + (f" without adapters in them ({inside[0]})" if inside else "")
            )
        same = [name for name in names if name.endswith(head) and name not in heads]
        if same:
            raise InputError(
                f"peft cannot store {head!r}, trained beside the adapters: it takes {same[0]!r} for it too"
            )
    there = slots(model)
    owners = {name.rpartition(".")[0]: slot.tensor for name, slot in there.items()}
    shared = {id(there[name].tensor) for name in trained if name in there}
    tied = sorted(name for name, tensor in owners.items() if id(tensor) in shared and name not in heads)
    if tied and (not _is_output(model, tied) or any(name.removesuffix(".base") in layers for name in tied)):
        raise InputError(f"peft cannot store {trained[0]!r}, trained beside the adapters: it is tied to {tied[0]}")
    return heads, tied


def _is_output(model: nn.Module, tied: list[str]) -> bool:
    """Whether what is tied is the output embedding alone, which peft can tie too."""
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return found is not None and tied == [name for name, module in model.named_modules() if module is found]
