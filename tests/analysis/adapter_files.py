"""Adapters of every kind in files, on the tiny models, and their delta_w as dense matrices."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loralib
import numpy as np
import peft
import torch
import transformers
import yaml
from tiny_models import randomise, tiny_model
from torch import nn

from experiments import methods
from experiments.models import head_modules
from experiments.store import fingerprint
from lora import freeze, inject, io
from lora.config import LoRAConfig
from lora.model import lora_layers

Dense = dict[tuple[str, str], np.ndarray]  # (module, weight type) -> delta_w


def base_folder(kind: str, folder: Path) -> str:
    """The tiny model itself, stored with its head."""
    tiny_model(kind).save_pretrained(folder)
    return str(folder)


def own(kind: str, folder: Path, seed: int = 1, **fields: Any) -> Dense:
    """An adapter of this suite."""
    model = tiny_model(kind)
    inject(model, LoRAConfig(**{"r": 4, "alpha": 8} | fields))
    freeze(model)
    randomise(model, seed)
    io.save(model, folder)
    return {
        (name, part.name): layer.delta_w(part.name).detach().double().numpy()
        for name, layer in lora_layers(model)
        for part in layer.parts
    }


def of_peft(kind: str, folder: Path, seed: int = 1, **options: Any) -> dict[str, np.ndarray]:
    """A peft adapter; its updates by module, as peft merges them, (d, k)."""
    model = peft.get_peft_model(tiny_model(kind), peft.LoraConfig(**{"r": 4, "lora_alpha": 8} | options))
    randomise(model, seed)
    model.save_pretrained(folder)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            delta = module.get_delta_weight("default").detach().double().numpy()
            found[name.removeprefix("base_model.model.")] = (
                delta.T if getattr(module, "fan_in_fan_out", False) else delta
            )
    return found


def of_loralib(kind: str, file: Path, endings: Sequence[str], r: int = 3, alpha: int = 6, seed: int = 1) -> None:
    """A loralib checkpoint that adapts the linear modules with these endings."""
    model = tiny_model(kind)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.endswith(tuple(endings)):
            d, k = module.weight.shape
            model.set_submodule(name, loralib.Linear(k, d, r=r, lora_alpha=alpha))
    randomise(model, seed)
    torch.save(loralib.lora_state_dict(model), file)


def stored_run(
    runs: Path, base: str, method: dict[str, Any], dtype: torch.dtype = torch.float32, frozen: Sequence[str] = ()
) -> tuple[Path, Dense]:
    """A stored run of `method` on the classifier in the folder `base`, as the runner loads, trains and stores one; the
    modules whose names hold one of `frozen` are not changed. Its updates are those of the modules named in Dense."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, dtype=dtype)
    heads = head_modules(model)
    for name in heads:
        model.get_submodule(name).float()
    methods.apply(model, method, heads)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not any(part in name for part in frozen):
                parameter += 0.05 * torch.randn_like(parameter)
    config = {
        "model": {"name": "tiny", "path": f"fingerprint:{fingerprint(Path(base))}"}, "task": {"name": "reviews"},
        "method": method, "training": {"lr": 1e-3}, "seed": 0,
    }  # fmt: skip
    folder = runs / hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    io.save(model, folder / "adapter")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.json").write_text(json.dumps({"precision": str(dtype).removeprefix("torch.")}))
    changes = {
        (name.removesuffix(".weight"), ""): (parameter.detach().double() - start[name].double()).numpy()
        for name, parameter in model.named_parameters()
        if name in start and name.endswith(".weight") and parameter.ndim == 2
    }
    return folder, changes
