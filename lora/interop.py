"""Adapters of other libraries: peft folders in and out, loralib checkpoints in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lora import dora
from lora.config import InputError, LoRAConfig
from lora.foreign import (
    PEFT_CONFIG,
    PEFT_MAGNITUDE,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
    Foreign,
    Piece,
    loralib_pieces,
    read_peft,
)
from lora.inject import base_parameters, lora_layers
from lora.io import Target, fill
from lora.layer import Part, shape
from lora.targets import find_places, weight_type_of
from lora.tensor_files import open_tensors


@torch.no_grad()
def save_peft(model: nn.Module, folder: Path | str, base_model: str = "") -> None:
    """Write the adapters and trained heads of `model` as a peft folder, which `peft.PeftModel.from_pretrained` opens.

    Slices of a fused projection become one adapter of all of it: the A's one below the other, each B in its own rows.
    Adapters that started from pissa or lora_ga become ordinary LoRA on the pretrained W0, as in `lora.io`.

    Raises InputError if there are no adapters, if some are DoRA and others not, or if what is trained beside them is no
    module that peft can store.
    """
    folder, layers = Path(folder), dict(lora_layers(model))
    if not layers:
        raise InputError("the model has no LoRA adapters to save")
    kinds = {part.dora for layer in layers.values() for part in layer.parts}
    if len(kinds) > 1:
        raise InputError("peft cannot store a model of which some adapters are DoRA and others are not")
    tensors: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    ranks: dict[str, int] = {}
    for name, layer in layers.items():
        first = layer.parts[0].scaling
        matrices = [layer.matrices(part.name) for part in layer.parts]
        A = torch.cat([A for A, _ in matrices])
        B = A.new_zeros(shape(layer.base)[0], len(A))
        columns = torch.split(B, [len(A) for A, _ in matrices], dim=1)  # views: what is written here is written in B
        for part, (_, own), column in zip(layer.parts, matrices, columns, strict=True):
            column[part.rows] = own * (part.scaling / first)
        kind, ending = ("lora_embedding", "") if isinstance(layer.base, nn.Embedding) else ("lora", ".weight")
        tensors |= {f"{PEFT_PREFIX}{name}.{kind}_{side}{ending}": value for side, value in (("A", A), ("B", B))}
        alphas[name], ranks[name] = first * len(A), len(A)
        if True in kinds:
            m = dora.start(layer.w0(Part("", 1, 1.0)))  # of all rows: those without an adapter keep their norm
            for part in layer.parts:
                m[part.rows] = layer.lora_m[part.name]
            tensors[f"{PEFT_PREFIX}{name}.{PEFT_MAGNITUDE}"] = m
    trained = [name for name, parameter in base_parameters(model).items() if parameter.requires_grad]
    heads = sorted({name.rpartition(".")[0] for name in trained})
    for head in heads:
        if not head or head in layers:
            raise InputError(
                f"peft cannot store {head or trained[0]!r}, trained beside the adapters: only whole modules"
            )
        tensors |= {
            f"{PEFT_PREFIX}{head}.{key}": value for key, value in model.get_submodule(head).state_dict().items()
        }
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "target_modules": sorted(layers),
        "rank_pattern": {f"^{re.escape(name)}": rank for name, rank in ranks.items()},
        "alpha_pattern": {f"^{re.escape(name)}": alpha for name, alpha in alphas.items()},
        "use_dora": True in kinds,
        "modules_to_save": heads or None,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=1))
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / PEFT_WEIGHTS)


def load_peft(model: nn.Module, folder: Path | str) -> None:
    """Attach a peft LoRA or DoRA adapter to `model`, with the modules it saved beside (`modules_to_save`).

    Raises InputError if the folder is damaged, is for another model, or uses what changes the equation (PiSSA…).
    """
    adapter = read_peft(Path(folder), lambda module: weight_type_of(model, module))
    fill(model, {target: adapter.tensors(target) for target in adapter.pieces}, adapter.parameters(), str(folder))


def _in_order(parts: list[Part], module: str) -> list[Part]:
    """The parts as loralib's MergedLinear has them: from the first rows to the last, each a block."""
    blocks = [(part.rows.start or 0, part) for part in parts if isinstance(part.rows, slice)]
    if len(blocks) < len(parts):
        raise InputError(
            f"loralib has no adapter for {parts[0].name} in {module}, whose rows are spread over the heads"
        )
    return [part for _, part in sorted(blocks, key=lambda block: block[0])]


def load_loralib(model: nn.Module, checkpoint: Path | str, config: LoRAConfig) -> None:
    """Attach a loralib checkpoint (`torch.save(loralib.lora_state_dict(model), path)`) to `model`, with all else in it.

    loralib stores neither alpha nor which slices of a MergedLinear are on: `config` tells. Only tensors are unpickled.

    Raises InputError if the file cannot be read, or if it and `config` or `model` do not agree.
    """
    file = open_tensors(Path(checkpoint))
    places = find_places(model, config)
    pieces: dict[Target, tuple[Piece, ...]] = {}
    for module in dict.fromkeys(place.module for place in places):
        parts = _in_order([place.part for place in places if place.module == module], module)
        pieces |= loralib_pieces(file, module, [part.name for part in parts], [part.scaling for part in parts])
        ranks = {target.r for target in pieces if target.module == module}
        if ranks != {part.r for part in parts}:
            raise InputError(
                f"{checkpoint}: A of {module} has rank {ranks.pop()}, but the configuration asks for {parts[0].r}"
            )
    adapted = {target.module for target in pieces}
    others = [name for name in file.shapes if name.rpartition(".lora_")[0] not in adapted]
    left = [name for name in others if ".lora_" in name]
    if left:
        raise InputError(f"{checkpoint} also adapts {left[0].rpartition('.')[0]}, which the configuration leaves out")
    adapter = Foreign(str(checkpoint), file, pieces, {name: name for name in others})
    fill(model, {target: adapter.tensors(target) for target in pieces}, adapter.parameters(), str(checkpoint))
