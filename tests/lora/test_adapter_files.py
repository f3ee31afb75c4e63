"""Adapter files as people have them: read as peft reads them, or refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_files import CONFIG, PICKLED, WEIGHTS, Q, assert_refused, by_peft, edit, loaded, write
from safetensors.torch import load_file, save_file
from tiny_models import assert_equal, assert_identical, logits, state, tiny_model

from analysis.weights import updates
from lora.config import InputError, LoRAConfig
from lora.interop import load_loralib, load_peft


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A peft adapter of the tiny Llama: r = 4, lora_alpha = 12, and 48 in one module."""
    return write(tmp_path / "adapter", alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})


VARIANTS = {
    "monteclora": {"monteclora_config": {}}, "velora": {"velora_config": {"num_groups": 4}},
    "mica": {"init_lora_weights": "mica"}, "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"}, "not from zero": {"init_lora_weights": False},
    "biases": {"bias": "all"}, "layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "excluded": {"exclude_modules": r".*\.0\..*"}, "all linear": {"target_modules": "all-linear"},
}  # fmt: skip


@pytest.mark.parametrize("case", VARIANTS)
def test_variants_that_are_lora_at_inference(case: str, tmp_path: Path) -> None:
    folder = write(tmp_path, **VARIANTS[case])
    model = tiny_model("llama")
    load_peft(model, folder)
    assert_equal(logits(model), by_peft(folder))
    found = updates.read(folder)
    stored = len(load_file(folder / WEIGHTS))
    used = 2 * len(found) + len(found.account().rows)
    unused = sum(int(number) for note in found.account().notes for number in re.findall(r"^(\d+) tensor", note))
    assert used + unused == stored  # every one is accounted for
    assert bool(unused) == (case in ("monteclora", "velora"))


OTHERS: dict[str, dict[str, Any]] = {
    "lora_bias": {"lora_bias": True}, "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "target_parameters": {"target_parameters": ["k_proj.weight"]}, "layer_replication": {"layer_replication": [[0, 2]]},
    "kasa_config": {"kasa_config": {}}, "alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "olora": {"init_lora_weights": "olora"}, "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
}  # fmt: skip


@pytest.mark.parametrize("option", OTHERS)
def test_other_equations_are_refused_by_name(option: str, tmp_path: Path) -> None:
    assert_refused(write(tmp_path, **OTHERS[option]), f"this peft adapter uses {option}, which is not h = W0 x")


def test_an_option_of_a_later_peft_is_refused(adapter: Path) -> None:
    edit(adapter, use_newra=True, other_option=None)
    assert_refused(adapter, "uses use_newra, .* as far as it is known here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_by_name(value: float, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    tensors[f"{Q}.lora_B.weight"][3, 1] = value
    save_file(tensors, adapter / WEIGHTS)
    assert_refused(adapter, rf"{Q}.lora_B.weight holds NaN or infinity")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_types_that_are_no_weights_are_refused_by_name(dtype: torch.dtype, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    torch.save(tensors | {f"{Q}.lora_A.weight": tensors[f"{Q}.lora_A.weight"].to(dtype)}, adapter / PICKLED)
    (adapter / WEIGHTS).unlink()
    assert_refused(adapter, rf"{Q}.lora_A.weight is stored as {str(dtype)[6:]}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype, adapter: Path) -> None:
    save_file({name: value.to(dtype) for name, value in load_file(adapter / WEIGHTS).items()}, adapter / WEIGHTS)
    assert_equal(loaded(adapter), by_peft(adapter))


ADDED = {
    "no module of the model": ("none.such.weight", "for another model: it trained none.such.weight"),
    "a name of LoRA's that is none": ("model.layers.0.self_attn.q_proj.lora_C.weight", "lora_C.weight is no tensor of"),
    "a module that is not targeted": ("model.layers.0.mlp.up_proj", "up_proj, which target_modules and its like"),
    "a weight under an adapter": ("model.layers.0.self_attn.q_proj.weight", "q_proj.base_layer.weight"),
}


@pytest.mark.parametrize("case", ADDED)
def test_tensors_that_peft_would_leave_are_refused_by_name(case: str, adapter: Path) -> None:
    name, match = ADDED[case]
    more = {f"base_model.model.{name}": torch.zeros(32, 32)}
    if name.endswith("up_proj"):
        more = {f"base_model.model.{name}.lora_A.weight": torch.ones(4, 32),
                f"base_model.model.{name}.lora_B.weight": torch.ones(48, 4)}  # fmt: skip
    save_file(load_file(adapter / WEIGHTS) | more, adapter / WEIGHTS)
    model = tiny_model("llama")
    before = state(model)
    with pytest.raises(InputError, match=match):
        load_peft(model, adapter)
    assert_identical(model, before)


def test_a_load_that_attaches_nothing_is_an_error(adapter: Path) -> None:
    save_file({}, adapter / WEIGHTS)
    assert_refused(adapter, "adapts no module: adapter_model.safetensors has no lora_A and lora_B")


OTHER_LIBRARIES = {
    "adapters": {"bert.encoder.layer.0.attention.self.query.loras.sql.lora_A": torch.ones(4, 8)},
    "torchtune": {"layers.0.attn.q_proj.lora_a.weight": torch.ones(4, 8)},
    "MLX": {"model.layers.0.self_attn.q_proj.lora_a": torch.ones(8, 4)},
    "kohya": {"lora_unet_down_blocks_0_attentions_0_to_q.lora_down.weight": torch.ones(4, 8)},
    "litgpt": {
        "transformer.h.0.attn.qkv.lora_A": torch.ones(4, 8),
        "transformer.h.0.attn.qkv.lora_B": torch.ones(8, 4),
    },
    "diffusers": {"unet.down_blocks.0.attn1.to_q.lora.down.weight": torch.ones(4, 8)},
    "LyCORIS": {"down.0.hada_w1_a": torch.ones(4, 8)},
    "NeMo": {"model.layers.0.self_attention.adapter_layer.lora_kqv_adapter.linear_in.weight": torch.ones(4, 8)},
}


@pytest.mark.parametrize("library", OTHER_LIBRARIES)
def test_files_of_other_libraries_are_refused_by_name(library: str, tmp_path: Path) -> None:
    for name, save in (("adapters.safetensors", save_file), ("adapter_0.pt", torch.save)):
        save(OTHER_LIBRARIES[library], tmp_path / name)
        with pytest.raises(InputError, match=f"is an adapter of {library}"):
            updates.read(tmp_path / name, alpha=8)
        with pytest.raises(InputError, match=f"is an adapter of {library}"):
            load_loralib(tiny_model("llama"), tmp_path / name, LoRAConfig())


@pytest.mark.parametrize(
    ("config", "library"),
    [
        (
            {"config": {"architecture": "lora", "r": 8}, "model_class": "BertModel", "version": "adapters.1.0.0"},
            "adapters",
        ),
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}, "MLX"),
    ],
)
def test_folders_of_other_libraries_are_refused_by_name(config: dict[str, Any], library: str, adapter: Path) -> None:
    (adapter / CONFIG).write_text(json.dumps(config))
    assert_refused(adapter, f"is an adapter of {library}")


def test_a_file_of_peft_without_its_config_is_refused(adapter: Path) -> None:
    with pytest.raises(InputError, match="does not tell their scaling: give the folder"):
        updates.read(adapter / WEIGHTS)
