"""Ways of adapting a model, one file each: after `apply(model, method, heads)` just what is trained needs gradients."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lora.config import InputError


def apply(model: nn.Module, method: Mapping[str, Any], heads: Sequence[str]) -> None:
    """Change `model`, in place, by the method of this name. Raises InputError for an unknown method or bad settings."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if method["name"] not in known:
        raise InputError(f"unknown method {method['name']!r}: there are {', '.join(known)}")
    importlib.import_module(f"{__name__}.{method['name']}").apply(model, method, heads)
