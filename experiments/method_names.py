"""What the method of a run is called: a readable label, and its settings in short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What a field holds where it changes nothing, and so is not worth a word; None, false and empty ones never are.
_PLAIN = {"alpha": 16, "dropout": 0, "init": "gaussian", "scaling": "standard", "lr_ratio": 1}
_IN_LABEL = ("name", "init", "scaling", "dora")
_FIRST = ("r", "alpha", "weight_types", "modules", "lr_ratio", "l_p", "l_i", "bottleneck", "drop")


def label(method: Mapping[str, Any]) -> str:
    """The name of a method; LoRA's variants, which are fields of the method `lora`, have names of their own, and full
    fine-tuning by another optimizer than AdamW has that of the optimizer.

    A run with several of them has several names: `dora+lora_plus`.
    """
    if method["name"] != "lora":
        return str(method.get("optimizer") or method["name"])
    ratio = method.get("lr_ratio") or _PLAIN["lr_ratio"]
    init, scaling = (str(method.get(field) or _PLAIN[field]) for field in ("init", "scaling"))
    parts = [
        "dora" if method.get("dora") else "",
        scaling if scaling != _PLAIN["scaling"] else "",
        "lora_plus" if ratio != _PLAIN["lr_ratio"] else "",
        init if init != _PLAIN["init"] else "",
    ]
    return "+".join(part for part in parts if part) or "lora"


def settings(method: Mapping[str, Any]) -> str:
    """The fields of a method that its label does not tell, without those that are as ever: `r=8, q+v`, `l_p=32, l_i=0`.

    Two methods that differ, differ in label or settings.
    """
    hidden = _IN_LABEL if method["name"] == "lora" else ("name", "optimizer")
    fields = [field for field in _FIRST if field in method] + sorted(set(method) - set(_FIRST))
    parts = []
    for field in fields:
        value = method[field]
        if field in hidden or value is None or value is False or value in ("", [], {}) or value == _PLAIN.get(field):
            continue
        parts.append(_shown(value) if field in ("weight_types", "modules") else f"{field}={_shown(value)}")
    return ", ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "/".join(f"{key}:{_shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "/".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def title(name: object, of: object) -> str:
    """A method in one phrase: its label and, in brackets, its settings."""
    return f"{name} ({of})" if of else str(name)
