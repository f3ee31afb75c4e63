"""Outputs and gradients equal peft's on every architecture, for every weight type."""

import copy

import peft
import pytest
import torch
from tiny_models import ARCHITECTURES, LAYERS, assert_equal, logits, randomise, tiny_model
from torch import Tensor, nn

from lora import targets
from lora.config import LoRAConfig
from lora.model import base_parameters, inject, lora_layers

CASES = [(kind, weight_type) for kind in ARCHITECTURES for weight_type in targets.weight_types(tiny_model(kind))]


def loss(model: nn.Module) -> Tensor:
    out = logits(model)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    return (out * weights).sum() + out.square().mean()


def peft_twin(ours: nn.Module, base: nn.Module) -> nn.Module:
    """The adapters of `ours` in peft: A as it is, and B in its rows of the module, with zeros around it."""
    layers = dict(lora_layers(ours))
    parts = {name: layer.parts[0] for name, layer in layers.items()}
    r, scaling = next((part.r, part.scaling) for part in parts.values())
    config = peft.LoraConfig(r=r, lora_alpha=r * scaling, target_modules=list(layers), lora_dropout=0.0)
    twin = peft.get_peft_model(base, config).eval()
    for name, part in parts.items():
        theirs = twin.base_model.model.get_submodule(name)
        with torch.no_grad():
            theirs.lora_A["default"].weight.copy_(layers[name].lora_A[part.name])
            theirs.lora_B["default"].weight.zero_()
            theirs.lora_B["default"].weight[part.rows] = layers[name].lora_B[part.name]
    return twin


@pytest.mark.parametrize(("kind", "weight_type"), CASES)
def test_equals_peft(kind: str, weight_type: str) -> None:
    ours = tiny_model(kind)
    base = copy.deepcopy(ours)
    inject(ours, LoRAConfig(r=3, alpha=7, weight_types=(weight_type,)))
    randomise(ours)
    theirs = peft_twin(ours, base)
    theirs.requires_grad_(True)
    out = logits(ours)
    assert_equal(out, logits(theirs), "outputs")
    assert (out - logits(tiny_model(kind))).abs().max() > 1e-4, "the adapters do nothing"

    loss(ours).backward()
    loss(theirs).backward()
    for name, layer in lora_layers(ours):
        twin = theirs.base_model.model.get_submodule(name)
        part = layer.parts[0]
        assert_equal(layer.lora_A[weight_type].grad, twin.lora_A["default"].weight.grad, f"gradient of A in {name}")
        grad_B = twin.lora_B["default"].weight.grad[part.rows]
        assert_equal(layer.lora_B[weight_type].grad, grad_B, f"gradient of B in {name}")
    plain = {name.replace(".base_layer.", "."): p for name, p in theirs.base_model.model.named_parameters()}
    gradients = {name: p.grad for name, p in base_parameters(ours).items() if p.grad is not None}
    assert any("embed" in name or "wte" in name or "shared" in name for name in gradients)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - plain[name].grad).abs().max() <= 2e-5 * largest, f"gradient of {name}"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_type_is_found_in_every_layer(kind: str) -> None:
    model = tiny_model(kind)
    for weight_type in targets.weight_types(model):
        places = targets.find_places(model, LoRAConfig(r=1, weight_types=(weight_type,)))
        attention = kind == "t5" and weight_type in "qkvo"
        stacks = (
            3 if attention else 2 if kind == "t5" else 1
        )  # T5: encoder, decoder, and the decoder's view of the encoder
        assert len(places) == LAYERS * stacks
        assert {place.layer for place in places} == set(range(LAYERS))
        assert {place.part.name for place in places} == {weight_type}


def test_t5_without_gate() -> None:
    model = tiny_model("t5", feed_forward_proj="relu")
    places = targets.find_places(model, LoRAConfig(r=1, weight_types=("up",)))
    assert {place.module.rsplit(".", 1)[1] for place in places} == {"wi"}


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "bloom", "phi3"])
def test_several_slices_of_one_projection(kind: str) -> None:
    """q, k and v together do what each does alone: their updates of the projection's output add up."""
    model = tiny_model(kind)
    inject(model, LoRAConfig(r={"q": 2, "k": 3, "v": 4}, alpha={"q": 2, "k": 6, "v": 2}, weight_types=("q", "k", "v")))
    randomise(model)
    _, layer = next(lora_layers(model))
    x = torch.randn(2, 5, 32)
    expected = layer.base(x)
    for part in layer.parts:
        delta = torch.zeros_like(expected)
        delta[..., part.rows] = x @ layer.delta_w(part.name).T
        expected = expected + delta
    assert [part.r for part in layer.parts] == [2, 3, 4]
    torch.testing.assert_close(layer(x), expected)
