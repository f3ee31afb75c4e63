"""Adapters of other libraries read without their model: the same updates as in the model that wrote them."""

import json
import math
import os
from pathlib import Path
from typing import Any

import loralib
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, randomise, tiny_model
from torch import Tensor, nn

from lora.config import InputError
from lora.formats.loralib import is_loralib, read_loralib
from lora.formats.peft import read_peft
from lora.targets import WHOLE, typed_places, types_by_name
from lora.tensor_files import open_tensors

R, ALPHA = 3, 7
PEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("bert", {"target_modules": ["query", "value"]}),
    "rslora": ("llama", {"target_modules": ["q_proj", "up_proj"], "use_rslora": True}),
    "patterns": (
        "llama",
        {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 2, "k_proj": 5}}
        | {"alpha_pattern": {"k_proj": 1}},
    ),
    "fan_in_fan_out": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "query"]}),
}


def peft_model(case: str, **more: object) -> nn.Module:
    kind, options = PEFT[case]
    model = peft.get_peft_model(tiny_model(kind), peft.LoraConfig(**({"r": 4, "lora_alpha": 12} | options | more)))
    randomise(model)
    return model.eval()


def peft_deltas(model: nn.Module) -> dict[str, Tensor]:
    """delta_w (d, k) of every adapted module, as peft merges it."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            delta = module.get_delta_weight("default")
            turned = isinstance(module, peft.tuners.lora.Embedding) or getattr(module, "fan_in_fan_out", False)
            found[name.removeprefix("base_model.model.")] = delta.T if turned else delta
    return found


def assert_deltas(adapter: Any, expected: dict[str, Tensor]) -> None:
    assert {target.module for target in adapter.pieces} == set(expected)
    for target in adapter.pieces:
        A, B, *_ = adapter.tensors(target)
        assert (target.r, target.shape) == (len(A), tuple(expected[target.module].shape))
        torch.testing.assert_close(target.scaling * B @ A, expected[target.module])


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("case", PEFT)
def test_peft(case: str, pickled: bool, tmp_path: Path) -> None:
    model = peft_model(case)
    model.save_pretrained(tmp_path, safe_serialization=not pickled)
    assert (tmp_path / "adapter_model.bin").is_file() == pickled
    assert_deltas(read_peft(tmp_path), peft_deltas(model))


def test_peft_dora(tmp_path: Path) -> None:
    model = peft_model("plain", use_dora=True)
    model.save_pretrained(tmp_path)
    adapter = read_peft(tmp_path)
    assert all(target.variant == "dora" for target in adapter.pieces)
    assert {len(adapter.tensors(target)) for target in adapter.pieces} == {3}
    assert_deltas(adapter, peft_deltas(model))  # peft's own delta is that of the directions too


def test_peft_weight_types_and_base(tmp_path: Path) -> None:
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(target_modules=["q_proj", "up_proj", "lm_head"]))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "some/llama"}))
    adapter = read_peft(tmp_path)
    assert {target.weight_type for target in adapter.pieces} == {"q", "up", WHOLE}
    assert adapter.base == "some/llama"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_types_by_name(kind: str) -> None:
    """The name alone says the weight types that the architecture's table gives the module."""
    types: dict[str, list[str]] = {}
    for module, _, part in typed_places(tiny_model(kind)):
        types.setdefault(module, []).append(part.name)
    assert {module: types_by_name(module) for module in types} == types
    assert types_by_name("classifier") == types_by_name("encoder.layer.0.attn.in_one") == []


def test_loralib_linear_and_embedding(tmp_path: Path) -> None:
    model = nn.ModuleDict({"words": loralib.Embedding(20, 6, r=2, lora_alpha=ALPHA)})
    model["encoder"] = nn.ModuleDict({"q_lin": loralib.Linear(6, 8, r=R, lora_alpha=ALPHA)})
    randomise(model)
    torch.save(loralib.lora_state_dict(model), tmp_path / "lora.pt")
    modules = {"words": model["words"], "encoder.q_lin": model["encoder"]["q_lin"]}
    expected = {name: module.lora_B @ module.lora_A * ALPHA / module.r for name, module in modules.items()}
    file = open_tensors(tmp_path / "lora.pt")
    assert is_loralib(file)
    assert_deltas(read_loralib(file, ALPHA), expected)


@pytest.mark.parametrize("types", [("q", "v"), ("v", "q"), ("k",), ("q", "k", "v"), ("k", "v")])
def test_loralib_merged_linear(types: tuple[str, ...], tmp_path: Path) -> None:
    enabled = [x in types for x in "qkv"]
    theirs = loralib.MergedLinear(10, 18, r=R, lora_alpha=ALPHA, enable_lora=enabled)
    model = nn.ModuleDict({"h": nn.ModuleList([nn.ModuleDict({"attn": nn.ModuleDict({"c_attn": theirs})})])})
    randomise(model)
    torch.save({"model_state_dict": loralib.lora_state_dict(model)}, tmp_path / "lora.pt")
    adapter = read_loralib(open_tensors(tmp_path / "lora.pt"), ALPHA, types)
    assert [target.weight_type for target in adapter.pieces] == [x for x in "qkv" if x in types]
    merged = theirs.merge_AB() * theirs.scaling
    for target in adapter.pieces:
        A, B = adapter.tensors(target)
        first = 6 * "qkv".index(target.weight_type)
        torch.testing.assert_close(target.scaling * B @ A, merged[first : first + 6])


def test_loralib_whole_fused_module(tmp_path: Path) -> None:
    """A plain Linear in the place of a fused projection is one update of all rows, if the user says so."""
    theirs = loralib.Linear(10, 18, r=R, lora_alpha=ALPHA)
    model = nn.ModuleDict({"attn": nn.ModuleDict({"c_attn": theirs})})
    randomise(model)
    save_file(loralib.lora_state_dict(model), tmp_path / "lora.safetensors")
    file = open_tensors(tmp_path / "lora.safetensors")
    assert_deltas(read_loralib(file, ALPHA, [WHOLE]), {"attn.c_attn": theirs.lora_B @ theirs.lora_A * ALPHA / R})
    with pytest.raises(InputError, match="adapts attn.c_attn, which is q.k.v in one, and does not say which"):
        read_loralib(file, ALPHA)


def loralib_file(path: Path, **tensors: Tensor) -> Any:
    torch.save({name.replace("__", "."): tensor for name, tensor in tensors.items()}, path)
    return open_tensors(path)


def test_loralib_refusals(tmp_path: Path) -> None:
    path, A, B = tmp_path / "lora.pt", torch.ones(R, 8), torch.ones(8, R)
    with pytest.raises(InputError, match="has no lora_A and lora_B for a.q"):
        read_loralib(loralib_file(path, a__q__lora_A=A), ALPHA)
    with pytest.raises(InputError, match=r"A \(2, 8\) and B \(8, 3\) of a.q are not those of 1 update"):
        read_loralib(loralib_file(path, a__q__lora_A=A[:2], a__q__lora_B=B), ALPHA)
    with pytest.raises(InputError, match=r"a.q.lora_A has the shape \(3,\): only adapters of linear layers"):
        read_loralib(loralib_file(path, a__q__lora_A=A[:, 0], a__q__lora_B=B), ALPHA)
    name = "attention.query_key_value"
    spread = {f"{name}.lora_A".replace(".", "__"): A, f"{name}.lora_B".replace(".", "__"): B}
    with pytest.raises(InputError, match="spread over the heads: choose the slices all"):
        read_loralib(loralib_file(path, **spread), ALPHA, ["q"])
    assert len(read_loralib(loralib_file(path, **spread), ALPHA, [WHOLE]).pieces) == 1


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    peft_model("plain").save_pretrained(tmp_path, safe_serialization=False)
    torch.save({"a.lora_A": Malicious(tmp_path / "trace")}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        read_peft(tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"rank_pattern": {"(": 4}}, "adapter_config.json is damaged: rank_pattern: missing"),
        ({"alpha_pattern": [3]}, "adapter_config.json is damaged: alpha_pattern is no table"),
        ({"r": 5}, "has rank 4 in adapter_model.safetensors, but r = 5"),
        ({"init_lora_weights": "pissa"}, "pissa, which is not"),
        ({"peft_type": "LOHA"}, "LOHA"),
    ],
)
def test_damaged_peft_configs(fields: dict[str, object], match: str, tmp_path: Path) -> None:
    peft_model("plain").save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(InputError, match=match) as raised:
        read_peft(tmp_path)
    assert "\n" not in str(raised.value)


def test_damaged_peft_tensors(tmp_path: Path) -> None:
    peft_model("plain").save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {name: tensors[name][:, :2].contiguous()}, path)
    with pytest.raises(InputError, match=r"is damaged: .* has A \(4, 32\) and B \(32, 2\)"):
        read_peft(tmp_path)
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    with pytest.raises(InputError, match="has an A but no B"):
        read_peft(tmp_path)
    save_file(tensors | {name.replace("lora_B", "lora_A"): torch.ones(4, 8, 3, 3)}, path)
    with pytest.raises(InputError, match="only adapters of linear layers and embeddings"):
        read_peft(tmp_path)


def test_scaling_of_rslora_is_by_the_root(tmp_path: Path) -> None:
    peft_model("rslora").save_pretrained(tmp_path)
    assert {target.scaling for target in read_peft(tmp_path).pieces} == {12 / math.sqrt(4)}
