"""Layers and checkpoints of loralib, the paper's own code: same outputs and gradients."""

from pathlib import Path

import loralib
import pytest
import torch
from tiny_models import HIDDEN, INPUTS, logits, randomise, tiny_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora.config import InputError, LoRAConfig
from lora.interop import load_loralib
from lora.layer import LoRALayer, Part
from lora.model import lora_layers

R, ALPHA = 3, 7


def random_like(layer: LoRALayer, theirs: nn.Module, names: list[str]) -> None:
    """The same random A and B on both sides; a MergedLinear has those of its slices one below the other."""
    randomise(layer)
    with torch.no_grad():
        theirs.lora_A.copy_(torch.cat([layer.lora_A[name] for name in names]))
        theirs.lora_B.copy_(torch.cat([layer.lora_B[name] for name in names]))


def assert_equal_layers(layer: LoRALayer, theirs: nn.Module, x: Tensor, names: list[str]) -> None:
    outputs, expected = layer(x), theirs(x)
    torch.testing.assert_close(outputs, expected)
    for out in (outputs, expected):
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    for side in "AB":
        ours = torch.cat([getattr(layer, f"lora_{side}")[name].grad for name in names])
        torch.testing.assert_close(ours, getattr(theirs, f"lora_{side}").grad)


def test_linear() -> None:
    theirs = loralib.Linear(10, 6, r=R, lora_alpha=ALPHA)
    base = nn.Linear(10, 6)
    base.load_state_dict(theirs.state_dict(), strict=False)
    layer = LoRALayer(base, (Part("all", R, ALPHA / R),))
    random_like(layer, theirs, ["all"])
    ours_x, their_x = torch.randn(2, 4, 5, 10)[:, :, :, :].requires_grad_().unbind()
    assert_equal_layers(layer, theirs, ours_x.detach(), ["all"])
    theirs.eval()  # loralib merges here; ours only when told
    layer.merge()
    torch.testing.assert_close(layer(their_x), theirs(their_x))


def test_embedding() -> None:
    theirs = loralib.Embedding(64, 8, r=R, lora_alpha=ALPHA, padding_idx=3)
    base = nn.Embedding(64, 8, padding_idx=3)
    base.load_state_dict(theirs.state_dict(), strict=False)
    layer = LoRALayer(base, (Part("all", R, ALPHA / R),))
    random_like(layer, theirs, ["all"])
    assert_equal_layers(layer, theirs, INPUTS, ["all"])


@pytest.mark.parametrize("transposed", [False, True])
def test_merged_linear(transposed: bool) -> None:
    enabled = [True, False, True]
    theirs = loralib.MergedLinear(10, 18, r=R, lora_alpha=ALPHA, enable_lora=enabled, fan_in_fan_out=transposed)
    base = Conv1D(18, 10) if transposed else nn.Linear(10, 18)
    base.load_state_dict(theirs.state_dict(), strict=False)
    scaling = ALPHA / R
    layer = LoRALayer(base, (Part("q", R, scaling, slice(0, 6)), Part("v", R, scaling, slice(12, 18))))
    random_like(layer, theirs, ["q", "v"])
    x = torch.randn(4, 5, 10)
    assert_equal_layers(layer, theirs, x, ["q", "v"])
    theirs.eval()
    layer.merge()
    torch.testing.assert_close(layer(x), theirs(x))
    torch.testing.assert_close(layer.weight, theirs.weight)


def loralib_gpt2(enabled: list[bool]) -> nn.Module:
    """The tiny GPT-2 as loralib's examples adapt it: c_attn becomes a MergedLinear."""
    model = tiny_model("gpt2")
    for name, module in list(model.named_modules()):
        if name.endswith("attn.c_attn"):
            new = loralib.MergedLinear(
                HIDDEN, 3 * HIDDEN, r=R, lora_alpha=ALPHA, enable_lora=enabled, fan_in_fan_out=True, merge_weights=False
            )
            new.load_state_dict(module.state_dict(), strict=False)
            model.set_submodule(name, new)
    randomise(model)
    return model.eval()


@pytest.mark.parametrize("types", [("q", "v"), ("v", "q"), ("k",), ("q", "k", "v"), ("v", "k")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_load_merged_linear(types: tuple[str, ...], wrapped: bool, tmp_path: Path) -> None:
    theirs = loralib_gpt2([x in types for x in "qkv"])
    state = loralib.lora_state_dict(theirs)
    torch.save({"model_state_dict": state} if wrapped else state, tmp_path / "lora.pt")
    ours = tiny_model("gpt2")
    load_loralib(ours, tmp_path / "lora.pt", LoRAConfig(r=R, alpha=ALPHA, weight_types=types))
    torch.testing.assert_close(logits(ours), logits(theirs))
    assert (logits(ours) - logits(tiny_model("gpt2"))).abs().max() > 1e-3


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
def test_load_linear_and_embedding(bias: str, tmp_path: Path) -> None:
    theirs = tiny_model("roberta")
    options = {"r": R, "lora_alpha": ALPHA, "merge_weights": False}
    for name, module in list(theirs.named_modules()):
        new: nn.Module
        if name.endswith(("self.query", "self.value")):
            new = loralib.Linear(HIDDEN, HIDDEN, **options)
        elif name.endswith("word_embeddings"):
            new = loralib.Embedding(*module.weight.shape, padding_idx=module.padding_idx, **options)
        else:
            continue
        new.load_state_dict(module.state_dict(), strict=False)
        theirs.set_submodule(name, new)
    theirs.eval()
    loralib.mark_only_lora_as_trainable(theirs, bias)
    randomise(theirs)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    torch.save(loralib.lora_state_dict(theirs, bias), tmp_path / "lora.pt")
    ours = tiny_model("roberta")
    load_loralib(ours, tmp_path / "lora.pt", LoRAConfig(r=R, alpha=ALPHA, modules=("*.word_embeddings",)))
    torch.testing.assert_close(logits(ours), logits(theirs))


def assert_refused(kind: str, path: Path, config: LoRAConfig, match: str) -> None:
    model = tiny_model(kind)
    with pytest.raises(InputError, match=match) as raised:
        load_loralib(model, path, config)
    assert "\n" not in str(raised.value)
    assert not list(lora_layers(model))
    torch.testing.assert_close(logits(model), logits(tiny_model(kind)), rtol=0, atol=0)


def test_refusals(tmp_path: Path) -> None:
    path, state = tmp_path / "lora.pt", loralib.lora_state_dict(loralib_gpt2([True, False, True]))
    config = LoRAConfig(r=R, alpha=ALPHA)
    assert_refused("gpt2", path, config, "does not exist")
    torch.save(state, path)
    one = r"A \(6, 32\) and B \(64, 3\) of transformer.h.0.attn.c_attn are not those of 1 update"
    assert_refused("gpt2", path, LoRAConfig(r=R, weight_types=("q",)), one)
    assert_refused("gpt2", path, LoRAConfig(r=2, weight_types=("q", "k", "v")), "are not those of 3 update")
    assert_refused("gpt2", path, LoRAConfig(r=4), "has rank 3, but the configuration asks for 4")
    assert_refused("gpt2", path, LoRAConfig(r=R, weight_types=("up",)), "no lora_A and lora_B for transformer.h.0.mlp")
    assert_refused("gpt2", path, LoRAConfig(r=R, layers=(0,)), "also adapts transformer.h.1.attn.c_attn")
    assert_refused("gpt_neox", path, config, "spread over the heads")
    torch.save(state | {"transformer.h.0.bias": torch.ones(2)}, path)
    assert_refused("gpt2", path, config, "this one has no such parameter")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert_refused("gpt2", path, config, "cannot be read as plain tensors")
    path.write_bytes(b"")
    assert_refused("gpt2", path, config, "cannot be read as plain tensors")
    torch.save([1, 2], path)
    assert_refused("gpt2", path, config, "holds other things than names and tensors")
    torch.save({"step": 3}, path)
    assert_refused("gpt2", path, config, "holds other things than names and tensors")
    assert_refused("gpt2", tmp_path, config, "is a folder, not a file")
