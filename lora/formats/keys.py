"""The names of stored tensors: what wrappers and peft have put before, into and behind the names of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

PREFIX = "base_model.model."  # peft's, before each name of the model
# Parts that torch.compile, FSDP and activation checkpointing put into names, and DistributedDataParallel before them
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
DISTRIBUTED = "module."

_ROLE = re.compile(
    r"^(?:(?P<module>.+)\.)?(?P<role>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?P<rest>(?:\.[^.]+)*)$"
)
_LORA = re.compile(r"(?:^|\.)(lora_[A-Za-z_]+)")
_SAVED = re.compile(r"\.modules_to_save\.([^.]+)(?=\.)")
_TWICE = re.compile(r"\.modules_to_save(?=\.[^.]+$)")
_ORIGINAL = re.compile(r"\.original_module(?=\.)")


class Key(NamedTuple):
    """What a stored name says.

    module   the module that it belongs to, by its name in the model that peft was given, without wrappers
    seen     the same with wrappers, as peft saw it: its patterns were matched against this
    role     lora_A, lora_B, lora_embedding_A, lora_embedding_B, lora_magnitude_vector, lora_B.bias; another word that
             begins with lora_; "" for a parameter of the model, whose leaf (`weight`) is in `leaf`; `original_module`
             for what peft keeps of a module that it trains whole, `copy` for a bias that it stores of it once more
    adapter  the adapter's name, where the stored name has it
    """

    module: str
    seen: str
    role: str
    leaf: str = ""
    adapter: str | None = None


def unwrapped(name: str) -> str:
    """A name without the parts that wrappers put into it anywhere."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def plain(names: Iterable[str]) -> dict[str, str]:
    """Stored name -> name without what wrappers have put into it."""
    return _strip({name: unwrapped(name) for name in names})


def parse(names: Iterable[str], keep_distributed: bool = False) -> dict[str, Key]:
    """What the names of one file say. `keep_distributed`: `module.` behind peft's prefix is a part of the model."""
    names = list(names)
    bare = {name: unwrapped(name) for name in names}
    outer = _strip(bare)
    # What holds a PeftModel has one text before peft's prefix in all names: an attribute's name
    before = {own.partition(PREFIX)[0] if PREFIX in own else None for own in outer.values()}
    holder = next(iter(before)) if len(before) == 1 else None
    inner = {name: own.removeprefix(holder or "").removeprefix(PREFIX) for name, own in outer.items()}
    if not keep_distributed:
        inner = _strip(inner)
    return {name: _key(name, own) for name, own in inner.items()}


def _strip(names: dict[str, str]) -> dict[str, str]:
    """Names less `module.` before them, as often as all of them have it."""
    while names and all(own.startswith(DISTRIBUTED) for own in names.values()):
        names = {name: own.removeprefix(DISTRIBUTED) for name, own in names.items()}
    return names


def _key(name: str, bare: str) -> Key:
    seen = name.partition(PREFIX)[2] if PREFIX in name else bare
    if found := _ROLE.match(bare):
        module, role, rest = found["module"] or "", found["role"], found["rest"].split(".")[1:]
        seen = seen.rpartition(f".{role}")[0]
        return Key(module, seen, *_adapter(role, rest))
    if found := _LORA.search(bare):
        return Key(bare[: found.start()], seen, found[1], bare[found.end() :].lstrip("."))
    if _ORIGINAL.search(bare):
        return Key(_ORIGINAL.sub("", bare).rpartition(".")[0], seen, "original_module")
    adapter, role = None, ""
    if _TWICE.search(bare):
        role, bare = "copy", _TWICE.sub("", bare)
    elif found := _SAVED.search(bare):
        adapter, bare = found[1], _SAVED.sub("", bare)
    module, _, leaf = bare.replace(".base_layer.", ".").rpartition(".")
    return Key(module, seen, role, leaf, adapter)


def _adapter(role: str, rest: list[str]) -> tuple[str, str, str | None]:
    """role, leaf and the adapter's name from what stands behind lora_A (`weight`, `default.weight`, `default`)."""
    leaf = rest.pop() if rest and rest[-1] in ("weight", "bias") else ""
    if len(rest) > 1:
        return role, ".".join([*rest, leaf]), None
    return (f"{role}.bias" if leaf == "bias" else role), leaf, rest[0] if rest else None
