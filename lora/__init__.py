"""LoRA, the core: adapters into a model, trained, merged, stored. Knows nothing of tasks, experiments or results.

    import lora

    lora.inject(model, lora.LoRAConfig(r=8, alpha=16, weight_types=("q", "v")))
    lora.freeze(model, trained=["classifier"])  # then train as you like
    lora.save(model, "adapter")  # A, B and the head
    lora.merge(model)  # same outputs, no added latency
    lora.unmerge(model)  # W0 is back bit for bit
    lora.eject(model)  # the model as it was
    lora.load(model, "adapter")
    lora.save_peft(model, "a-peft-folder")  # and load_peft, load_loralib

Names are loaded when they are asked for: `lora.config` costs no import of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora.config import LoRAConfig
    from lora.formats.peft_out import save_peft
    from lora.interop import load_loralib, load_peft
    from lora.io import load, save
    from lora.model import eject, freeze, inject, merge, unmerge

__all__ = [
    "LoRAConfig",
    "eject",
    "freeze",
    "inject",
    "load",
    "load_loralib",
    "load_peft",
    "merge",
    "save",
    "save_peft",
    "unmerge",
]
_OF = {
    "config": ("LoRAConfig",),
    "formats.peft_out": ("save_peft",),
    "interop": ("load_loralib", "load_peft"),
    "io": ("load", "save"),
    "model": ("eject", "freeze", "inject", "merge", "unmerge"),
}
_MODULES = {name: module for module, names in _OF.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
