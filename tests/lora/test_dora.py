"""DoRA: outputs, gradients and merged weights equal peft's; whatever the projection, forward is W' = m V / ||V||."""

import copy
from pathlib import Path

import peft
import pytest
import torch
from tiny_models import ARCHITECTURES, assert_equal, assert_identical, every_type, logits, randomise, state, tiny_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora import io
from lora.config import InputError, LoRAConfig
from lora.layer import LoRALayer, Part
from lora.model import base_parameters, eject, freeze, inject, lora_layers, merge, trainable_parameters, unmerge

# kind -> weight types that are whole modules
WHOLE_MODULES = {"bert": ("q", "v", "up"), "gpt2": ("o", "up", "down"), "llama": ("k", "down")}


def twins(kind: str, dropout: float = 0.0) -> tuple[nn.Module, nn.Module]:
    """One model with the same DoRA adapters, ours and peft's."""
    ours = tiny_model(kind)
    base = copy.deepcopy(ours)
    inject(ours, LoRAConfig(r=3, alpha=7, weight_types=WHOLE_MODULES[kind], dropout=dropout, variant="dora"))
    randomise(ours)
    layers = dict(lora_layers(ours))
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=list(layers), lora_dropout=dropout, use_dora=True)
    theirs = peft.get_peft_model(base, config).eval()
    for name, layer in layers.items():
        twin, part = theirs.base_model.model.get_submodule(name), layer.parts[0].name
        with torch.no_grad():
            twin.lora_A["default"].weight.copy_(layer.lora_A[part])
            twin.lora_B["default"].weight.copy_(layer.lora_B[part])
            twin.lora_magnitude_vector["default"].weight.copy_(layer.lora_m[part])
    return ours, theirs


def loss(model: nn.Module) -> Tensor:
    out = logits(model)
    return (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() + out.square().mean()


@pytest.mark.parametrize("kind", WHOLE_MODULES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equals_peft(kind: str, dropout: float) -> None:
    ours, theirs = twins(kind, dropout)
    assert_equal(logits(ours), logits(theirs))
    if dropout:  # in training the same entries of x are dropped: both draw one mask a module
        for model in (ours, theirs):
            model.train()
    theirs.requires_grad_(True)
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        losses.append(loss(model))
        losses[-1].backward()
    assert_equal(losses[0], losses[1], "loss")
    for name, layer in lora_layers(ours):
        twin, part = theirs.base_model.model.get_submodule(name), layer.parts[0].name
        assert_equal(layer.lora_A[part].grad, twin.lora_A["default"].weight.grad, f"gradient of A in {name}")
        assert_equal(layer.lora_B[part].grad, twin.lora_B["default"].weight.grad, f"gradient of B in {name}")
        m_grad = twin.lora_magnitude_vector["default"].weight.grad
        assert m_grad.abs().max() > 0
        assert_equal(layer.lora_m[part].grad, m_grad, f"gradient of m in {name}")
    plain = {name.replace(".base_layer.", "."): p for name, p in theirs.base_model.model.named_parameters()}
    gradients = {name: p.grad for name, p in base_parameters(ours).items() if p.grad is not None}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        if kind == "gpt2" and dropout and dict(lora_layers(ours)).get(name.removesuffix(".weight")):
            continue  # peft loses W0's own gradient there: it makes the transposed weight a parameter of its own
        assert (gradient - plain[name].grad).abs().max() <= 2e-5 * largest, f"gradient of {name}"


@pytest.mark.parametrize("kind", WHOLE_MODULES)
def test_merge_equals_peft(kind: str) -> None:
    ours, theirs = twins(kind)
    merge(ours)
    merged = dict(theirs.merge_and_unload().named_parameters())
    for name, parameter in base_parameters(ours).items():
        assert_equal(parameter, merged[name], name)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_projection(kind: str, tmp_path: Path) -> None:
    """Slices of fused projections too: starts at the base model, merges to the same outputs, is stored, comes out."""
    model = tiny_model(kind)
    before, out = state(model), logits(model)
    inject(model, every_type(kind, variant="dora", alpha=5))
    assert torch.equal(logits(model), out)
    randomise(model)
    freeze(model)
    unmerged, adapted = state(model), logits(model)
    assert (adapted - out).abs().max() > 1e-3
    io.save(model, tmp_path)
    merge(model)
    assert_equal(logits(model), adapted)
    unmerge(model)
    assert_identical(model, unmerged)

    back = tiny_model(kind)
    io.load(back, tmp_path)
    assert torch.equal(logits(back), adapted)
    merge(model)
    eject(model)
    assert_identical(model, before)


@pytest.mark.parametrize("base", [nn.Linear(5, 7), nn.Linear(5, 7, bias=False), Conv1D(7, 5)])
def test_equation(base: nn.Module) -> None:
    """Row by row: W' has norm |m| and the direction of W0 + s B A; rows without an adapter keep W0."""
    rows = torch.tensor([6, 0, 3])
    layer = LoRALayer(base, (Part("q", 2, 1.5, rows, variant="dora"),))
    assert torch.equal(layer.lora_m["q"], layer.w0(layer.parts[0]).norm(dim=1))
    assert layer.lora_m["q"].dtype == torch.float32
    randomise(layer)
    W = base.weight.detach().clone() if isinstance(base, nn.Linear) else base.weight.detach().T.clone()
    V = W[rows] + 1.5 * layer.lora_B["q"] @ layer.lora_A["q"]
    W[rows] = layer.lora_m["q"][:, None] * V / V.norm(dim=1, keepdim=True)
    x = torch.randn(4, 5)
    expected = x @ W.T + (0 if base.bias is None else base.bias)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.delta_w("q"), W[rows] - layer.w0(layer.parts[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = tiny_model("llama").to(dtype)
    before, out = state(model), logits(model)
    inject(model, LoRAConfig(r=4, weight_types=("q", "o"), variant="dora"))
    layer = next(layer for _, layer in lora_layers(model))
    assert layer.lora_m["q"].dtype == torch.float32
    assert torch.equal(logits(model), out)
    randomise(model)
    adapted = logits(model)
    assert adapted.dtype == dtype
    merge(model)
    W0 = before["model.layers.0.self_attn.q_proj.weight"].float()
    assert torch.equal(layer.weight, (W0 + layer.delta_w("q")).to(dtype))
    assert (logits(model) - adapted).abs().max() < 0.05 * adapted.abs().max()
    eject(model)
    assert_identical(model, before)


def test_autocast_keeps_the_precision_of_the_output() -> None:
    layer = LoRALayer(nn.Linear(32, 32), (Part("q", 2, 1.0, variant="dora"),))
    x = torch.randn(3, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert torch.equal(layer(x), layer.base(x))


def test_magnitudes_are_trained() -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2, weight_types=("q",), variant="dora"))
    model.requires_grad_(False)
    freeze(model)
    names = {name.split("query.")[1] for name in trainable_parameters(model)}
    assert names == {"lora_A.q", "lora_B.q", "lora_m.q"}
    assert not any("lora_m" in name for name in base_parameters(model))


def test_what_dora_cannot_adapt() -> None:
    with pytest.raises(InputError, match="DoRA is for Linear and Conv1D, not for an Embedding"):
        inject(tiny_model("bert"), LoRAConfig(r=2, modules=("*.word_embeddings",), variant="dora"))
    base = nn.Linear(4, 4)
    nn.init.zeros_(base.weight[1])
    with pytest.raises(InputError, match="some rows are zero"):
        LoRALayer(base, (Part("q", 2, 1.0, variant="dora"),))
