"""peft adapters: folders with adapter_config.json and adapter_model.safetensors, read as peft 0.21 reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from lora.errors import InputError
from lora.formats.keys import Key, parse
from lora.formats.others import refuse_other
from lora.formats.peft_config import PEFT_CONFIG, PeftConfig, read_peft_config, scaling
from lora.stored import Adapter, Piece, Target
from lora.targets import WHOLE, layer_of, types_by_name
from lora.tensor_files import TensorFile, open_tensors
from lora.variants import PLAIN, Update, chosen, known

PEFT_WEIGHTS, PEFT_PICKLED = "adapter_model.safetensors", "adapter_model.bin"  # the second is of old versions
# Tensors of variants that are plain LoRA when they are not trained
TRAINING = {
    "lora_monteclora_sampler": "MonteCLoRA samples with it in training alone",
    "lora_velora_embed": "VeLoRA compresses activations with it in training alone",
}
COPY = "peft stores the biases of a module that it trains whole twice (bias = all)"
ORIGINAL = "the copy of a module as it was before training"


class _Module(NamedTuple):
    """One adapted module: its names, and role -> stored name."""

    seen: str
    roles: dict[str, str]


def type_by_name(module: str) -> str:
    """The weight type that a whole module is by its name, or WHOLE if it is fused or of no known architecture."""
    types = types_by_name(module)
    return types[0] if len(types) == 1 else WHOLE


def read_peft(
    folder: Path,
    weight_type: Callable[[str], str] = type_by_name,
    modules: Iterable[str] = (),
    parameters: Iterable[str] = (),
) -> Adapter:
    """A peft LoRA or DoRA adapter. `weight_type`: module -> its weight type; `modules` and `parameters`: those of the
    model that it is for, if there is one (they tell whether a `module.` in all names is a wrapper's, and whether all is
    there that `modules_to_save` names).

    Raises InputError if the folder is damaged or of another library, if the adapter uses what changes the equation
    (PiSSA…), adapts nothing, lacks what it says that it saved, or stores a tensor that peft would not load.
    """
    config = read_peft_config(folder)
    safe, pickled = folder / PEFT_WEIGHTS, folder / PEFT_PICKLED
    file = open_tensors(pickled if pickled.is_file() and not safe.is_file() else safe)
    notes = [f"{PEFT_PICKLED} is there too and not read, as peft does"] * (safe.is_file() and pickled.is_file())
    keys = _keys(file, set(modules))
    adapted, others, unused = _sorted(file, config, keys)
    if not adapted:
        refuse_other(file)
        raise InputError(f"{folder} adapts no module: {file.path.name} has no lora_A and lora_B")
    for name, key in keys.items():
        if key.role == "" and key.module in adapted and ".base_layer." not in name:
            raise InputError(
                f"{folder}: {name} is a weight of an adapted module under a name that peft does not read: it should be "
                f"{key.module}.base_layer.{key.leaf}"
            )
    pieces = _pieces(file, config, adapted, weight_type)
    lacking = sorted(name for name in parameters if config.is_saved(name) and name not in others)
    if lacking:
        raise InputError(
            f"{folder} lacks {lacking[0]}, of a module that modules_to_save in {PEFT_CONFIG} names: it is damaged"
        )
    if (saved := config.options.get("modules_to_save")) and not any(config.is_saved(name) for name in others):
        notes.append(f"modules_to_save names {', '.join(map(str, saved))}, of which nothing is stored")
    apart = (
        frozenset(name for name in others if config.is_saved(name)) if not config.is_on("ensure_weight_tying") else ()
    )
    base = config.options.get("base_model_name_or_path") or None
    return Adapter(str(folder), file, pieces, others, frozenset(apart), unused, base, tuple(notes))


def _keys(file: TensorFile, modules: set[str]) -> dict[str, Key]:
    """What the names say. Raises InputError if one adapter is there under several names, or several are."""
    keys = parse(file.shapes, keep_distributed=True)
    if not modules & {key.module for key in keys.values()}:
        keys = parse(file.shapes)
    names = {key.adapter for key in keys.values() if key.adapter}
    if len(names) > 1:
        raise InputError(
            f"{file.path} holds several adapters ({', '.join(sorted(names))}): give a file with one of them"
        )
    return keys


def _sorted(
    file: TensorFile, config: PeftConfig, keys: dict[str, Key]
) -> tuple[dict[str, _Module], dict[str, str], dict[str, str]]:
    """The adapted modules, the other parameters (name in the model -> stored name), and what is not used and why.

    Raises InputError for a name that says nothing, or that is there twice.
    """
    adapted: dict[str, _Module] = {}
    others: dict[str, str] = {}
    unused: dict[str, str] = {}
    for name, key in keys.items():
        if key.role == "original_module":
            unused[name] = ORIGINAL
        elif key.role == "copy":
            unused[name] = COPY
        elif key.role in TRAINING:
            unused[name] = TRAINING[key.role]
        elif key.role == "":
            own = f"{key.module}.{key.leaf}".lstrip(".")
            if own in others:
                raise InputError(f"{file.path}: {others[own]} and {name} are both {own}: which one is it?")
            others[own] = name
        elif not _is_known(key):
            raise InputError(f"{file.path}: {name} is no tensor of peft's LoRA or DoRA that is known here")
        else:
            found = adapted.setdefault(key.module, _Module(key.seen, {}))
            if key.role in found.roles:
                raise InputError(f"{file.path}: {found.roles[key.role]} and {name} are both {key.role} of {key.module}")
            found.roles[key.role] = name
    return adapted, others, unused


def _is_known(key: Key) -> bool:
    """Whether this is A, B or what an update has beside them, under a name of peft's."""
    if key.role in ("lora_A", "lora_B"):
        return key.leaf == "weight"
    return key.role in ("lora_embedding_A", "lora_embedding_B", *_sides()) and key.leaf in ("", "weight")


def _sides() -> dict[str, str]:
    """Name of a tensor that an update other than plain LoRA has beside A and B -> the option that asks for it."""
    stored = [update.peft for update in known(Update).values() if update.peft]
    return {name: peft.option for peft in stored for name in peft.sides.values()}


def _pieces(
    file: TensorFile, config: PeftConfig, adapted: dict[str, _Module], weight_type: Callable[[str], str]
) -> dict[Target, tuple[Piece, ...]]:
    folder = config.folder
    switched = (own for own in known(Update).values() if own.peft and config.is_on(own.peft.option))
    update = next(switched, chosen(Update, PLAIN))  # what the adapter adds
    seen = [module.seen for module in adapted.values()]
    options = _scalings(config, seen)
    targeted = config.targeted(seen)
    if list(adapted) != seen:
        for module, as_seen, as_named in zip(adapted, options, _scalings(config, list(adapted)), strict=True):
            if as_seen != as_named:
                raise InputError(
                    f"{folder}: the patterns in {PEFT_CONFIG} give {module} another r or lora_alpha without the "
                    "wrapper in its stored name than with it: take the wrapper out of names and patterns"
                )
        targeted = [one or other for one, other in zip(targeted, config.targeted(list(adapted)), strict=True)]
    pieces: dict[Target, tuple[Piece, ...]] = {}
    for (module, (_, roles)), (r, alpha), loaded in zip(adapted.items(), options, targeted, strict=True):
        names = _factors(folder, module, roles, update)
        if not loaded:
            raise InputError(
                f"{folder} holds an adapter of {module}, which target_modules and its like in {PEFT_CONFIG} leave out: "
                "peft does not load it"
            )
        (rank, k), (d, columns) = (matrix_shape(file, name) for name in names[:2])
        factor = scaling(config, r, alpha) if rank == r else None
        if factor is None:
            told = f"r = {repr(r)[:40]} and lora_alpha = {repr(alpha)[:40]} in {PEFT_CONFIG}"
            raise InputError(f"{folder}: {module} has rank {rank} in {file.path.name}, but {told}")
        target = Target(module, weight_type(module), layer_of(module), rank, factor, (d, k), 0.0, update.name)
        target.check([(rank, k), (d, columns), *(file.shapes[name] for name in names[2:])], str(folder))
        pieces[target] = tuple(Piece(name) for name in names)
    return pieces


def _scalings(config: PeftConfig, modules: list[str]) -> list[tuple[object, object]]:
    """r and lora_alpha of each module."""
    ranks = config.values("r", "rank_pattern", modules)
    return list(zip(ranks, config.values("lora_alpha", "alpha_pattern", modules), strict=True))


def _factors(folder: Path, module: str, roles: dict[str, str], update: Update) -> list[str]:
    """The stored names of A, B and what the update has beside. Raises InputError if one is missing or too many."""
    roles = dict(roles)
    kind = "lora_embedding_" if "lora_embedding_A" in roles or "lora_embedding_B" in roles else "lora_"
    names = [roles.pop(f"{kind}{side}", None) for side in "AB"]
    if names[0] is None or names[1] is None:
        has, lacks = "AB" if names[1] is None else "BA"
        raise InputError(f"{folder}: {module} has an {has} but no {lacks}: the adapter is damaged")
    for own in update.peft.sides.values() if update.peft else ():
        names.append(roles.pop(own, None))
        if names[-1] is None:
            raise InputError(f"{folder}: {module} has no {own}, which {update.title} needs: the adapter is damaged")
    if roles:
        more, name = next(iter(roles.items()))
        why = f" ({_sides()[more]} is not set)" if more in _sides() else ""
        raise InputError(f"{folder}: {name} is stored beside A and B of {module}, but is no part of it{why}")
    return [str(name) for name in names]


def matrix_shape(file: TensorFile, name: str) -> tuple[int, int]:
    """The shape of A or B. Raises InputError if it is no matrix (of a convolution), or empty."""
    shape = file.shapes[name]
    if len(shape) != 2:
        raise InputError(f"{file.path}: {name} has the shape {shape}: only adapters of linear layers and embeddings")
    if not all(shape):
        raise InputError(f"{file.path}: {name} has the shape {shape}: it is empty (a shard of ZeRO-3 or FSDP?)")
    return shape[0], shape[1]


def is_peft(names: Iterable[str]) -> bool:
    """Whether names of tensors are those of a peft adapter, or of a model with one in it."""
    return any(re.search(r"\.lora_(embedding_)?[AB](\.[^.]+)?\.weight$|\.lora_embedding_[AB]", name) for name in names)
