"""Peft adapters of the tiny Llama in folders, and what both of our readers must do with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from safetensors.torch import load_file, save_file
from tiny_models import assert_identical, logits, randomise, state, tiny_model
from torch import Tensor, nn

from analysis.weights import updates
from lora.config import InputError
from lora.interop import load_peft

WEIGHTS, PICKLED, CONFIG = "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def write(folder: Path, **options: Any) -> Path:
    given = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]} | options
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(**given))
    randomise(model)
    model.save_pretrained(folder)
    return folder


def by_peft(folder: Path) -> Tensor:
    return logits(peft.PeftModel.from_pretrained(tiny_model("llama"), folder).eval()).detach()


def loaded(folder: Path) -> Tensor:
    model = tiny_model("llama")
    load_peft(model, folder)
    return logits(model).detach()


def rename(folder: Path, change: Callable[[str], str]) -> None:
    save_file({change(name): value for name, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def edit(folder: Path, **options: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def compare(folder: Path) -> None:
    """Read all of an adapter as compare does."""
    found = updates.read(folder)
    for update in found.values():
        update.norm()
    found.account()


def assert_refused(folder: Path, match: str, model: nn.Module | None = None) -> None:
    """By load_peft, with the model as it was, and by compare's reader, both in one line."""
    model = model or tiny_model("llama")
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        load_peft(model, folder)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800
    assert_identical(model, before)
    with pytest.raises(InputError, match=match):
        compare(folder)
