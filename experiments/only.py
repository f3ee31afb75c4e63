"""A part of a study: `only.model=minilm only.method.r=1,8` does the runs that have these settings, and no others.

A setting is one of the composed config; a group stands for its name, as tables have it. A run that has no such setting
(a rank, of full fine-tuning; a quantisation, of weights that are not) stays, and is alone asked for by null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from experiments import method_names
from lora.config import InputError

if TYPE_CHECKING:
    from experiments.sweep import Entry

KEY = "only"
GROUPS = ("model", "task", "method")


def typed(argument: str) -> str:
    """A word of a command line for Hydra: the values of `only.…` are a list, not a sweep."""
    name, equals, values = argument.partition("=")
    key, _, setting = name.partition(".")
    if key != KEY or not equals:
        return argument
    listed = values if values[:1] == "[" else f"[{values}]"
    return f"++{KEY}{f'.{_field(setting)}' if setting else ''}={listed}"


def _field(setting: str) -> str:
    return f"{setting}.name" if setting in GROUPS else setting


def _name(field: str) -> str:
    """What a user calls a field."""
    return field.removesuffix(".name")


def conditions(config: DictConfig) -> dict[str, list[str]]:
    """The values of each setting that a command asks for. Raises InputError for none, or values of no setting."""
    asked = config.get(KEY) or {}
    if not isinstance(asked, Mapping):
        raise InputError(f"{KEY}=…: say of which setting, as in {KEY}.model=minilm or {KEY}.method.r=1,8")
    found = dict(_flat(asked))
    if empty := [field for field, values in found.items() if not values]:
        raise InputError(f"{KEY}.{_name(empty[0])}: give values, as in {KEY}.model=minilm or {KEY}.method.r=1,8")
    return found


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    for key, inside in tree.items():
        if isinstance(inside, Mapping):
            yield from _flat(inside, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", [_text(value) for value in inside]


def _text(value: object) -> str:
    return "null" if value is None else str(value)


def keep(entries: Iterable[Entry]) -> list[Entry]:
    """The jobs that fit what the command asks for, whose configs no longer say so.

    Raises InputError for a value that no job has which fits the other conditions, with those that there are.
    """
    entries = list(entries)
    asked = conditions(entries[0].config)
    has = [{field: _value(entry.config, field) for field in asked} for entry in entries]
    for field, values in asked.items():
        others = [found[field] for found in has if _fits(found, {**asked, field: []})]
        there = [] if set(others) <= {None} else list(dict.fromkeys(map(_text, others)))
        if unknown := [value for value in values if value not in there]:
            also = " with the other conditions" if len(asked) > 1 else ""
            choices = f"there are {', '.join(there)}" if there else "none has this setting"
            raise InputError(f"{KEY}.{_name(field)}={unknown[0]} is of no run here{also}; {choices}")
    for entry in entries:
        with open_dict(entry.config):
            entry.config.pop(KEY, None)
    return [entry for entry, found in zip(entries, has, strict=True) if _fits(found, asked)]


def _value(config: DictConfig, field: str) -> object:
    """What a job has; None where it has no such setting. A method is called as in tables: full fine-tuning by GaLore is
    `galore`."""
    return method_names.label(config.method) if field == "method.name" else OmegaConf.select(config, field)


def _fits(found: Mapping[str, Any], asked: Mapping[str, list[str]]) -> bool:
    """True if a job's values are among those asked for; none asked for, or no such setting, is no condition."""
    return all(not values or found[field] is None or str(found[field]) in values for field, values in asked.items())
