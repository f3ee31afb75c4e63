"""Configs of adapters that are none, and loads that fail: one line, and the model as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_files import CONFIG, WEIGHTS, assert_refused, edit, write
from safetensors.torch import load_file, save_file
from tiny_models import assert_identical, state, tiny_model

from analysis.weights import updates
from lora import io
from lora.config import InputError, LoRAConfig
from lora.formats import patterns
from lora.formats.peft import read_peft
from lora.interop import load_peft
from lora.model import freeze, inject
from lora.tensor_files import open_tensors


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A peft adapter of the tiny Llama: r = 4, lora_alpha = 12, and 48 in one module."""
    return write(tmp_path / "adapter", alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rank_pattern": {r"([\w.]+)+!": 4}}, "rank_pattern: matching its regular expressions does not end"),
        ({"target_modules": r"((a|m|l|\.|\w)*)*!"}, "target_modules: matching its regular expressions does not end"),
        ({"rank_pattern": {"(" * 5000: 4}}, "adapter_config.json is damaged: rank_pattern"),
        ({"rank_pattern": {"a" * 20_000: 4}}, "regular expression of 20,0.. characters is too long"),
        ({"rank_pattern": {"q_proj": "4"}}, "has rank 4 in adapter_model.safetensors, but r = '4'"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "lora_alpha = nan"),
        ({"lora_alpha": True}, "lora_alpha = True"),
        ({"lora_alpha": 1e308}, r"lora_alpha = 1e\+308"),
        ({"r": 10**400, "rank_pattern": {}}, "but r = 10000"),
        ({"use_rslora": "yes"}, "use_rslora = 'yes' is not true or false"),
        ({"target_modules": {"q_proj": 1}}, "target_modules = .* is not a list of names"),
        ({"modules_to_save": "lm_head"}, "modules_to_save = 'lm_head' is not a list of names"),
        ({"layers_to_transform": ["0"]}, "layers_to_transform = .* is not a list of layers"),
        ({"bias": 3}, "bias = '3' is not none, all or lora_only"),
    ],
)
def test_configs_that_are_none(
    change: dict[str, Any], match: str, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "does not end" in match:
        monkeypatch.setattr(patterns, "SECONDS", 0.5)
    edit(adapter, **change)
    assert_refused(adapter, match)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '{"r": ' + "9" * 5000 + "}"])
def test_json_that_is_nested_or_long_without_end(text: str, adapter: Path, tmp_path: Path) -> None:
    (adapter / CONFIG).write_text(text)
    assert_refused(adapter, "adapter_config.json is damaged")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / io.CONFIG).write_text(text)
    with pytest.raises(InputError, match=r"lora_config.json is damaged"):
        io.read(tmp_path / "own")


def test_a_file_is_opened_once_for_all_its_tensors(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(adapter, modules_to_save=["extra"])
    more = {f"base_model.model.extra.{number}": torch.ones(1) for number in range(2000)}
    save_file(load_file(adapter / WEIGHTS) | more, adapter / WEIGHTS)
    file = open_tensors(adapter / WEIGHTS)
    opened = []
    original = type(file)._read
    monkeypatch.setattr(type(file), "_read", lambda self, names: opened.append(len(names)) or original(self, names))
    found = read_peft(adapter)
    assert len(found.parameters()) == 2000 and len(found.all_tensors()) == 4
    assert max(opened) == 2000 and len(opened) <= 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", "4"), ("r", 0), ("r", True), ("scaling", "x"), ("scaling", float("nan")), ("scaling", None),
        ("shape", [32]), ("shape", 3), ("shape", ["a", "b"]), ("module", 3), ("weight_type", None), ("layer", "0"),
        ("w0_norm", "x"), ("w0_norm", float("inf")), ("dora", 1), ("unknown", 1), ("weight_type", "a.b"),
    ],
)  # fmt: skip
def test_types_in_lora_config_are_checked(field: str, value: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    inject(model, LoRAConfig(r=4, weight_types=("q",)))
    freeze(model)
    io.save(model, tmp_path)
    content = json.loads((tmp_path / io.CONFIG).read_text())
    content["targets"][1][field] = value
    (tmp_path / io.CONFIG).write_text(json.dumps(content))
    fresh = tiny_model("llama")
    before = state(fresh)
    with pytest.raises(InputError, match="lora_config.json is damaged"):
        io.load(fresh, tmp_path)
    assert_identical(fresh, before)


@pytest.mark.parametrize("targets", [0, 1])
def test_a_tensor_that_the_config_does_not_tell_of_is_named(targets: int, tmp_path: Path) -> None:
    model = tiny_model("llama")
    inject(model, LoRAConfig(r=4, weight_types=("q",)))
    freeze(model)
    io.save(model, tmp_path)
    content = json.loads((tmp_path / io.CONFIG).read_text())
    (tmp_path / io.CONFIG).write_text(json.dumps(content | {"targets": content["targets"][:targets]}))
    with pytest.raises(InputError, match=r"holds model.layers..*lora_A, of which lora_config.json does not tell"):
        io.load(tiny_model("llama"), tmp_path)
    with pytest.raises(InputError, match="of which lora_config.json does not tell"):
        updates.read(tmp_path, None)


def test_whatever_goes_wrong_the_model_is_as_it_was(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora import fill

    edit(adapter, modules_to_save=["model.norm"])  # peft reads names by their ends: "norm" is input_layernorm too
    norm = {"base_model.model.model.norm.weight": torch.ones(32)}
    save_file(load_file(adapter / WEIGHTS) | norm, adapter / WEIGHTS)
    model = tiny_model("llama")
    before = state(model)

    def broken(*_: object) -> None:
        raise TypeError("from the middle of it")

    original = fill.adapters_of
    monkeypatch.setattr(fill, "adapters_of", broken)
    with pytest.raises(TypeError, match="from the middle"):
        load_peft(model, adapter)
    assert_identical(model, before)
    monkeypatch.setattr(fill, "adapters_of", original)
    load_peft(model, adapter)
    assert not torch.equal(model.model.norm.weight, before["model.norm.weight"])
