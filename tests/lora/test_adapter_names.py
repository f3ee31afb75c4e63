"""Names and patterns in peft's files: wrappers, adapters' names, both formats; read as peft reads them."""

import re
from pathlib import Path

import peft
import pytest
import torch
from peft_files import PICKLED, WEIGHTS, assert_refused, by_peft, edit, loaded, rename, write
from safetensors.torch import load_file, save_file
from tiny_models import assert_equal, logits, randomise, tiny_model
from torch import nn

from analysis.weights import updates
from lora.formats.peft import read_peft
from lora.interop import load_peft


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A peft adapter of the tiny Llama: r = 4, lora_alpha = 12, and 48 in one module."""
    return write(tmp_path / "adapter", alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})


PREFIXES = (
    *("model.", "_forward_module.model.", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."),
    "_fsdp_wrapped_module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_before_the_names(prefix: str, adapter: Path) -> None:
    expected = by_peft(adapter)
    rename(adapter, lambda name: prefix + name)
    assert_equal(loaded(adapter), expected)
    scalings = {target.module: target.scaling for target in read_peft(adapter).pieces}
    assert scalings.pop("model.layers.0.self_attn.q_proj") == 12 and set(scalings.values()) == {3}


def test_wrappers_within_the_names(tmp_path: Path) -> None:
    """Of the base, or of its layers: as peft sees them, a pattern that starts at the beginning does not match."""
    plain = write(tmp_path / "plain")
    expected = by_peft(plain)
    inner = "base_model.model._orig_mod."
    rename(plain, lambda name: name.replace("base_model.model.", inner, 1))
    assert_equal(loaded(plain), expected)
    edit(plain, alpha_pattern={"q_proj": 12})  # the same with and without the wrapper
    assert_equal(loaded(plain), expected)
    edit(plain, alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})
    assert_refused(plain, r"give model.layers.0.self_attn.q_proj another r or lora_alpha without the wrapper")


def test_a_module_called_module_is_no_wrapper(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"module": nn.ModuleDict({"body": nn.Linear(6, 6)})})

    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=2, target_modules=["body"]))
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours, x = make(), torch.randn(3, 6)
    load_peft(ours, tmp_path)
    assert_equal(ours["module"]["body"](x), theirs.base_model.model["module"]["body"](x))


@pytest.mark.parametrize("name", ["default", "sql"])
def test_an_adapters_name_in_the_keys(name: str, adapter: Path) -> None:
    expected = by_peft(adapter)
    rename(adapter, lambda key: key.replace(".weight", f".{name}.weight"))
    assert_equal(loaded(adapter), expected)


def test_several_adapters_in_one_file_are_refused(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    more = {name.replace(".weight", f".{own}.weight"): value.clone() for name, value in tensors.items() for own in "ab"}
    save_file(more, adapter / WEIGHTS)
    assert_refused(adapter, r"holds several adapters \(a, b\)")


@pytest.mark.parametrize("ending", ["", ".weight", ".default.weight", ".default"])
def test_names_of_doras_magnitudes(ending: str, tmp_path: Path) -> None:
    folder = write(tmp_path, use_dora=True)
    expected = by_peft(folder)
    rename(folder, lambda name: re.sub("lora_magnitude_vector$", f"lora_magnitude_vector{ending}", name))
    assert_equal(loaded(folder), expected)


def test_patterns_are_those_of_peft(tmp_path: Path) -> None:
    rules = [
        {"q_proj": 1, "layers.0.self_attn.q_proj": 99}, {"layers.0.self_attn.q_proj": 99, "q_proj": 1},
        {"proj": 7}, {r"layers\.\d+\..*(q|v)_proj": 5}, {"^model.layers.1.self_attn.v_proj": 3, "attn.v_proj": 6},
        {r".*\.0\..*": 4}, {"model.layers.[01].self_attn.q_proj": 11}, {"_proj|x": 5}, {"q_proj$": 8},
    ]  # fmt: skip
    for index, rule in enumerate(rules):
        folder = write(tmp_path / str(index), alpha_pattern=rule)
        assert_equal(loaded(folder), by_peft(folder), str(rule))


def test_safetensors_before_pickled_as_peft_chooses(adapter: Path) -> None:
    expected = by_peft(adapter)
    torch.save({name: value + 1 for name, value in load_file(adapter / WEIGHTS).items()}, adapter / PICKLED)
    assert_equal(by_peft(adapter), expected)
    assert_equal(loaded(adapter), expected)
    assert any("adapter_model.bin is there too" in note for note in updates.read(adapter).account().notes)


def test_counters_and_buffers_of_a_saved_module(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"body": nn.Linear(6, 6), "head": nn.BatchNorm1d(6)})

    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=2, target_modules=["body"], modules_to_save=["head"]))
    randomise(theirs)
    x = torch.randn(9, 6)
    theirs.base_model.model["head"](x * 3 + 1)  # running statistics move
    theirs.save_pretrained(tmp_path)
    theirs.eval()
    ours = make().eval()
    load_peft(ours, tmp_path)
    run = theirs.base_model.model
    assert_equal(ours["head"](ours["body"](x)), run["head"](run["body"](x)))
    assert ours["head"].num_batches_tracked == 1


def test_a_rank_above_the_layers_size(tmp_path: Path) -> None:
    """r = 5 on a classifier of two classes: peft takes it."""
    config = peft.LoraConfig(r=5, lora_alpha=12, target_modules=["query", "classifier"], use_rslora=True)
    theirs = peft.get_peft_model(tiny_model("bert"), config)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = tiny_model("bert")
    load_peft(ours, tmp_path)
    assert_equal(logits(ours), logits(peft.PeftModel.from_pretrained(tiny_model("bert"), tmp_path)))
