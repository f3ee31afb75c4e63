"""A saved adapter brings back every trained parameter; a damaged or foreign one is refused and changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, HIDDEN, assert_identical, logits, randomise, state, tiny_model
from torch import nn

from lora import io, targets
from lora.config import InputError, LoRAConfig
from lora.model import base_parameters, freeze, inject, merge, trainable_parameters

HEADS = {"bert": "classifier", "roberta": "classifier", "deberta-v2": "classifier", "llama": "lm_head"}


def trained_model(kind: str, config: LoRAConfig, heads: list[str], seed: int = 1) -> nn.Module:
    """As after training: A, B and every trained parameter differ from the start."""
    model = tiny_model(kind)
    inject(model, config)
    freeze(model, heads)
    randomise(model, seed)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    types = targets.weight_types(tiny_model(kind))
    config = LoRAConfig(r={name: 1 + index for index, name in enumerate(types)}, alpha=5, weight_types=types)
    model = trained_model(kind, config, [HEADS[kind]] if kind in HEADS else [])
    io.save(model, tmp_path / "new" / "adapter")
    back = tiny_model(kind)
    io.load(back, tmp_path / "new" / "adapter")
    assert torch.equal(logits(back), logits(model))

    merge(model)  # storing a merged model stores the same adapter
    io.save(model, tmp_path / "merged")
    assert io.read(tmp_path / "merged").targets == io.read(tmp_path / "new" / "adapter").targets


def test_every_trained_parameter_is_stored(tmp_path: Path) -> None:
    """Heads, norms, and the bias of an adapted module, by the names that they have without adapters."""
    heads = ["classifier", "bert.embeddings.LayerNorm", "bert.encoder.layer.1.attention.self.query.bias"]
    model = trained_model("bert", LoRAConfig(r=2, modules=("*.word_embeddings",)), heads)
    io.save(model, tmp_path)
    adapter = io.read(tmp_path)
    assert list(adapter.others) == [
        "bert.embeddings.LayerNorm.bias",
        "bert.embeddings.LayerNorm.weight",
        "bert.encoder.layer.1.attention.self.query.bias",
        "classifier.bias",
        "classifier.weight",
    ]
    back = tiny_model("bert")
    io.load(back, tmp_path)
    assert torch.equal(logits(back), logits(model))
    theirs = base_parameters(model)
    for name, parameter in base_parameters(back).items():
        assert torch.equal(parameter, theirs[name])


def test_format(tmp_path: Path) -> None:
    model = trained_model("gpt2", LoRAConfig(r=2, alpha=8, weight_types=("v",)), [])
    io.save(model, tmp_path)
    first, second = io.read(tmp_path).targets
    name = "transformer.h.{}.attn.c_attn"
    assert (first.module, first.weight_type, first.layer) == (name.format(0), "v", 0)
    assert (second.module, second.layer) == (name.format(1), 1)
    assert (first.r, first.scaling, first.shape) == (2, 4.0, (HIDDEN, HIDDEN))
    layer = model.get_submodule(first.module)
    W0 = layer.weight[:, 2 * HIDDEN :]
    assert first.w0_norm == pytest.approx(W0.norm().item())
    A, B = io.read(str(tmp_path)).matrices(first)
    assert torch.equal(A, layer.lora_A["v"])
    assert torch.equal(B, layer.lora_B["v"])
    torch.testing.assert_close(first.scaling * B @ A, layer.delta_w("v"))
    tensors = load_file(tmp_path / "adapter.safetensors")
    assert set(tensors) == {f"{name.format(layer)}.v.lora_{side}" for layer in (0, 1) for side in "AB"}
    content = json.loads((tmp_path / "lora_config.json").read_text())
    assert set(content) == {"format", "targets", "trained_parameters"}
    assert set(content["targets"][0]) == {"module", "weight_type", "layer", "r", "scaling", "shape", "w0_norm"}


def test_format_of_dora(tmp_path: Path) -> None:
    model = trained_model("gpt2", LoRAConfig(r=2, weight_types=("v",), variant="dora"), [])
    io.save(model, tmp_path)
    stored = io.read(tmp_path)
    layer = model.get_submodule(stored.targets[0].module)
    assert all(target.variant == "dora" for target in stored.targets)
    for ours, theirs in zip((layer.lora_A, layer.lora_B, layer.lora_m), stored.tensors(stored.targets[0]), strict=True):
        assert torch.equal(ours["v"], theirs)
    assert len(stored.matrices(stored.targets[0])) == 2
    name = f"{stored.targets[1].key}.lora_m"
    change_tensor(tmp_path, name, torch.ones(3))
    assert_refused(tiny_model("gpt2"), tmp_path, r"is damaged: .* has A .* and m \(3,\), but needs A .* and m \(32,\)")
    change_tensor(tmp_path, name, None)
    assert_refused(tiny_model("gpt2"), tmp_path, f"lacks the tensor {name}")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of the tiny BERT with its head."""
    io.save(trained_model("bert", LoRAConfig(r=4), ["classifier"]), tmp_path)
    return tmp_path


def assert_refused(model: nn.Module, folder: Path, match: str) -> None:
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        io.load(model, folder)
    assert "\n" not in str(raised.value)
    assert_identical(model, before)


def change_config(folder: Path, change: str, value: object, target: int | None = None) -> None:
    path = folder / "lora_config.json"
    content = json.loads(path.read_text())
    (content if target is None else content["targets"][target])[change] = value
    path.write_text(json.dumps(content))


def change_tensor(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / "adapter.safetensors")
    tensors.pop(name)
    save_file(tensors | ({} if value is None else {name: value}), folder / "adapter.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_file_cut_short(adapter: Path, share: float) -> None:
    weights = adapter / "adapter.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(share * len(whole))])
    assert_refused(tiny_model("bert"), adapter, "adapter.safetensors is damaged .*copy or train it again")


def test_config_cut_short(adapter: Path) -> None:
    path = adapter / "lora_config.json"
    text = path.read_text()
    for broken in ("", text[: len(text) // 2], "[1]", "\x00"):
        path.write_text(broken)
        assert_refused(tiny_model("bert"), adapter, "lora_config.json is damaged")
    path.write_bytes(b"\xff\xfe{")
    assert_refused(tiny_model("bert"), adapter, "lora_config.json is damaged")


def test_missing_files(adapter: Path) -> None:
    assert_refused(tiny_model("bert"), adapter / "nowhere", "lora_config.json does not exist")
    assert_refused(tiny_model("bert"), adapter / "lora_config.json", "lora_config.json does not exist")
    (adapter / "adapter.safetensors").unlink()
    assert_refused(tiny_model("bert"), adapter, "adapter.safetensors does not exist")


@pytest.mark.parametrize(
    ("field", "value"),
    [("targets", None), ("targets", [1]), ("targets", [{"module": "x"}]), ("trained_parameters", None), ("format", 2)],
)
def test_config_that_is_damaged_or_of_another_version(adapter: Path, field: str, value: object) -> None:
    change_config(adapter, field, value)
    assert_refused(tiny_model("bert"), adapter, "lora_config.json is damaged")


def test_wrong_shapes(adapter: Path) -> None:
    query = "bert.encoder.layer.1.attention.self.query.q"
    change_tensor(adapter, f"{query}.lora_B", torch.zeros(HIDDEN, 3))
    assert_refused(tiny_model("bert"), adapter, rf"is damaged: {query} has A \(4, 32\) and B \(32, 3\), but needs")
    change_tensor(adapter, f"{query}.lora_B", None)
    assert_refused(tiny_model("bert"), adapter, f"lacks the tensor {query}.lora_B")


def test_wrong_head(adapter: Path) -> None:
    change_tensor(adapter, "classifier.weight", torch.zeros(3, HIDDEN))
    assert_refused(tiny_model("bert"), adapter, r"it trained classifier.weight \(3, 32\), this one has \(2, 32\) there")
    change_tensor(adapter, "classifier.weight", None)
    assert_refused(tiny_model("bert"), adapter, "lacks the tensor classifier.weight")


def test_another_model(adapter: Path) -> None:
    assert_refused(tiny_model("bert", num_labels=3), adapter, "for another model: it trained classifier")
    assert_refused(tiny_model("bert", num_hidden_layers=1), adapter, "the model has no module bert.encoder.layer.1")
    assert_refused(tiny_model("llama"), adapter, "for another model: it trained classifier")


def test_another_width(tmp_path: Path) -> None:
    io.save(trained_model("bert", LoRAConfig(r=4), []), tmp_path)
    assert_refused(tiny_model("bert", hidden_size=16), tmp_path, r"shape \(32, 32\) and norm .* here it is \(16, 16\)")
    assert_refused(
        tiny_model("bert", hidden_size=2, num_attention_heads=1), tmp_path, "does not fit this model: rank r = 4"
    )
    assert_refused(tiny_model("roberta"), tmp_path, "does not fit this model: the model has no module bert.encoder")


def test_same_shape_but_other_weights(adapter: Path) -> None:
    other = tiny_model("bert")
    with torch.no_grad():
        other.get_submodule("bert.encoder.layer.1.attention.self.value").weight.mul_(1.05)
    assert_refused(other, adapter, "layer.1.attention.self.value.v was trained on a W0 of shape .* and norm")
    rounded = tiny_model("bert").to(torch.bfloat16)  # the same model in another precision is the same model
    io.load(rounded, adapter)


def test_model_that_has_adapters(adapter: Path) -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=1))
    assert_refused(model, adapter, "the model has LoRA adapters already: eject them first")


def test_reading_refuses_damaged_matrices(adapter: Path) -> None:
    change_config(adapter, "r", 3, target=0)
    stored = io.read(adapter)
    with pytest.raises(InputError, match=r"is damaged: .*query.q has A"):
        stored.matrices(stored.targets[0])
