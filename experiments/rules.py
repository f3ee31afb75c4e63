"""What a setting may be: a rule says so in words, and whether a value is that. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lora.errors import InputError, is_count, is_number

MOST = 2**31 - 1  # of whole numbers, where nothing else bounds them: what torch and tokenizers take for a size


@dataclass(frozen=True)
class Rule:
    """What a setting may be: `what`, as "it must be a positive number", says it, `fits` tells. One that is not
    `required` may be absent."""

    what: str
    fits: Callable[[Any], bool]
    required: bool = True

    def check(self, name: str, value: object) -> None:
        """Raises InputError, naming the field, if the value does not fit."""
        if not self.fits(value):
            raise InputError(f"{name} = {value!r}: {self.what}")

    def or_null(self) -> Rule:
        """The rule of a field that may be null."""
        return replace(self, what=f"{self.what}, or null", fits=lambda value: value is None or self.fits(value))

    def or_word(self, word: str) -> Rule:
        """The rule of a field that may also be this word."""
        return replace(self, what=f"{self.what}, or {word}", fits=lambda value: value == word or self.fits(value))

    def optional(self) -> Rule:
        """The rule of a field that may be absent."""
        return replace(self, required=False)


def whole(least: int = 1, most: int = MOST) -> Rule:
    """A whole number between these bounds."""
    what = f"it must be a whole number of at least {least}" + (f" and at most {most}" if most != MOST else "")
    return Rule(what, lambda value: is_count(value, least) and value <= most)


def positive() -> Rule:
    """A positive number."""
    return Rule("it must be a positive number", lambda value: is_number(value) and value > 0)


def number() -> Rule:
    """Any finite number."""
    return Rule("it must be a number", is_number)


def share() -> Rule:
    """A number in [0, 1]."""
    return Rule("it must be a number between 0 and 1", lambda value: is_number(value) and 0 <= value <= 1)


def below_one() -> Rule:
    """A number in [0, 1)."""
    return Rule("it must be a number from 0 to below 1", lambda value: is_number(value) and 0 <= value < 1)


def flag() -> Rule:
    """True or false."""
    return Rule("it must be true or false", lambda value: isinstance(value, bool))


def text() -> Rule:
    """A text that is not empty and can be part of a file's name."""
    return Rule(
        "it must be a text (a number is one in quotes, '\"5\"')",
        lambda value: isinstance(value, str) and value.strip() != "" and "\0" not in value,
    )


def any_text() -> Rule:
    """A text, which may be empty."""
    return Rule("it must be a text", lambda value: isinstance(value, str))


def choice(*names: str) -> Rule:
    """One of a few words."""
    return Rule(f"choose from {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _noun(rule: Rule) -> str:
    return rule.what.removeprefix("it must be ")


def listing(rule: Rule, least: int = 0) -> Rule:
    """A list whose items follow a rule."""
    few = " that is not empty" if least else ""
    return Rule(
        f"it must be a list{few}, as [a,b], each item {_noun(rule)}",
        lambda value: isinstance(value, list) and len(value) >= least and all(map(rule.fits, value)),
    )


def mapping(rule: Rule, least: int = 0) -> Rule:
    """A mapping from texts or numbers to what follows a rule."""
    return Rule(
        f"it must be a mapping, as {{a: …}}, each value {_noun(rule)}",
        lambda value: isinstance(value, dict) and len(value) >= least and all(map(rule.fits, value.values())),
    )


def either(*rules: Rule) -> Rule:
    """What follows one rule or another."""
    what = ", or ".join(map(_noun, rules))
    return Rule(f"it must be {what}", lambda value: any(rule.fits(value) for rule in rules))


def check_fields(group: str, values: object, rules: Mapping[str, Rule]) -> None:
    """Raises InputError if `values`, of the group of this name, are no mapping, lack a field, have one that there is
    not, or one that does not follow its rule."""
    if not isinstance(values, Mapping):
        raise InputError(f"{group} = {values!r}: it must be a group of settings: {', '.join(rules)}")
    for field, rule in rules.items():
        if field in values:
            rule.check(f"{group}.{field}", values[field])
        elif rule.required:
            raise InputError(f"{group}.{field} is missing: {rule.what.removeprefix('it ')}")
    for field in values:
        if field not in rules:
            raise InputError(f"{group} has no field {str(field)!r}: it has {', '.join(rules)}")
