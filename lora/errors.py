"""What the user gave and cannot work: values, and packages that are not there."""

from __future__ import annotations

import importlib
import sys
from typing import Any, TypeGuard


class InputError(ValueError):
    """Something the user gave cannot work. The message is one line: what is wrong, where, what to do.

    Names of files and labels may hold anything: line breaks and other characters that cannot be printed are escaped.
    """

    def __str__(self) -> str:
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in super().__str__())


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_a(instance: object, *names: str) -> bool:
    """Whether an object is of a class of one of these names, or of one derived from it, importing nothing."""
    return any(own.__name__ in names for own in type(instance).__mro__)


def library(module: str, what: str) -> Any:
    """A module of a package that need not be there. Raises InputError, saying `what` needs it, if it is not."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"{what} needs the package {package} ({error}): pip install {package}") from error
