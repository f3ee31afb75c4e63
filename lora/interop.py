"""Adapters of other libraries into a model: peft folders and loralib checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lora import delta
from lora.config import LoRAConfig
from lora.errors import InputError
from lora.fill import fill, slots
from lora.formats.loralib import loralib_pieces, modules_of, others_of
from lora.formats.peft import read_peft
from lora.layer import Part
from lora.stored import Adapter, Piece, Target
from lora.targets import find_places, weight_type_of
from lora.tensor_files import open_tensors
from lora.variants import PLAIN, Start, Update, chosen


def load_peft(model: nn.Module, folder: Path | str) -> None:
    """Attach a peft LoRA or DoRA adapter to `model`, with the modules it saved beside (`modules_to_save`).

    As in peft, a module that was saved whole (`modules_to_save`) is a copy of its own: if its weight is tied to another
    module, that one keeps the pretrained weight, unless the adapter ties them too (`ensure_weight_tying`).

    Raises InputError if the folder is damaged, is for another model, adapts nothing, stores what peft would not load,
    or uses what changes the equation (PiSSA…); the model is then as it was.
    """
    modules = (name for name, _ in model.named_modules(remove_duplicate=False))
    adapter = read_peft(Path(folder), lambda module: weight_type_of(model, module), modules, slots(model))
    _fill(model, adapter, str(folder))


def _fill(model: nn.Module, adapter: Adapter, source: str) -> None:
    adapters: dict[Target, tuple[Tensor, ...]] = {}
    for target, (A, B, *rest) in adapter.all_tensors().items():
        A, B = delta.smallest(A, B)
        adapters[target._replace(r=len(A))] = (A, B, *rest)
    fill(model, adapters, adapter.parameters(), source, apart=adapter.apart)


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
    update, start = chosen(Update, config.variant), chosen(Start, config.init)
    if config.variant != PLAIN or start.residual or start.remakes:
        what = start if config.variant == PLAIN else update
        raise InputError(f"{checkpoint}: a loralib checkpoint has no {what.title}, it is plain LoRA: leave that out")
    file = open_tensors(Path(checkpoint))
    stored, places = modules_of(file), find_places(model, config)
    pieces: dict[Target, tuple[Piece, ...]] = {}
    for module in dict.fromkeys(place.module for place in places):
        parts = _in_order([place.part for place in places if place.module == module], module)
        names, scalings = [part.name for part in parts], [part.scaling for part in parts]
        pieces |= loralib_pieces(file, module, stored.get(module, module), names, scalings)
        ranks = {target.r for target in pieces if target.module == module}
        if ranks != {part.r for part in parts}:
            raise InputError(
                f"{checkpoint}: A of {module} has rank {ranks.pop()}, but the configuration asks for {parts[0].r}"
            )
    left = sorted(set(stored) - {target.module for target in pieces})
    if left:
        raise InputError(f"{checkpoint} also adapts {left[0]}, which the configuration leaves out")
    adapter = Adapter(str(checkpoint), file, pieces, others_of(file))
    _refuse_merged(model, adapter)
    _fill(model, adapter, str(checkpoint))


def _refuse_merged(model: nn.Module, adapter: Adapter) -> None:
    """Raises InputError if a file holds a weight under an adapter that is not W0: loralib merges B A into it."""
    there = slots(model)
    for module in {target.module for target in adapter.pieces}:
        name = f"{module}.weight"
        if name not in adapter.others or name not in there:
            continue
        stored, own = adapter.file.weights([adapter.others[name]])[adapter.others[name]], there[name].tensor
        if stored.shape == own.shape and not torch.equal(stored.to(own), own):
            raise InputError(
                f"{adapter.source}: {name} is not the pretrained one: its adapter may be merged into it already "
                "(loralib does so in eval()). Save loralib.lora_state_dict(model) alone"
            )
