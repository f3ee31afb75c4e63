"""Other libraries, whose classes are told by their names, so that none is imported before it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from lora.errors import InputError


def is_a(instance: object, *names: str) -> bool:
    """Whether an object is of a class of one of these names, or of one derived from it."""
    return any(own.__name__ in names for own in type(instance).__mro__)


def library(module: str, what: str) -> Any:
    """A module of a package that need not be there. Raises InputError, saying `what` needs it, if it is not."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f"{what} needs the package {package} ({error}): pip install {package}") from error
