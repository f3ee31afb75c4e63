"""The layer computes h = W0 x + s B A x, merged or not, and W0 comes back bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, assert_equal, assert_identical, every_type, logits, randomise, state, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora.config import LoRAConfig
from lora.layer import LoRALayer, Part
from lora.model import eject, freeze, inject, lora_layers, merge, unmerge


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_merge_and_unmerge(kind: str) -> None:
    model = tiny_model(kind)
    config = every_type(kind)
    inject(model, config)
    randomise(model)
    before, out = state(model), logits(model)
    merge(model)
    merged = state(model)
    assert any(not torch.equal(before[name], merged[name]) for name in before)
    assert_equal(logits(model), out)
    merge(model)
    assert_identical(model, merged)
    model.train()
    model.eval()
    assert_identical(model, merged)
    unmerge(model)
    assert_identical(model, before)
    unmerge(model)
    assert_identical(model, before)
    model.train()
    assert_identical(model, before)
    model.eval()
    assert torch.equal(logits(model), out)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_merge_in_half_precision(dtype: torch.dtype) -> None:
    """Adding and subtracting in bf16 would not give W0 back; keeping it does."""
    model = tiny_model("llama").to(dtype)
    inject(model, LoRAConfig(r=4, weight_types=("q", "o", "down")))
    randomise(model)
    layer = next(layer for _, layer in lora_layers(model))
    assert layer.lora_A["q"].dtype == torch.float32
    before, out = state(model), logits(model)
    merge(model)
    assert layer.weight.dtype == dtype
    expected = (before["model.layers.0.self_attn.q_proj.base.weight"].float() + layer.delta_w("q")).to(dtype)
    assert torch.equal(layer.weight, expected)
    assert (logits(model) - out).abs().max() < 0.05 * out.abs().max()
    unmerge(model)
    assert_identical(model, before)


def test_merge_leaves_tied_weights_alone() -> None:
    model = tiny_model("gpt2")
    head, embedding = model.get_submodule("lm_head"), model.get_submodule("transformer.wte")
    assert head.weight is embedding.weight
    inject(model, LoRAConfig(r=2, weight_types=(), modules=("*wte",)))
    randomise(model)
    before, out = head.weight.clone(), logits(model)
    merge(model)
    assert torch.equal(head.weight, before)
    assert not torch.equal(model.get_submodule("transformer.wte").weight, before)
    assert_equal(logits(model), out)
    eject(model)
    assert head.weight is model.get_submodule("transformer.wte").weight


def test_merged_model_is_as_before_in_training() -> None:
    """No gradient reaches A and B while merged, and W0 keeps its own requires_grad."""
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2))
    freeze(model)
    merge(model)
    assert not logits(model).requires_grad
    unmerge(model)
    assert logits(model).requires_grad


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(64, 8), (Part("q", 4, 1.0),), dropout=0.5)
    randomise(layer)
    x = torch.randn(3, 64)
    whole = layer.base(x) + x @ layer.delta_w("q").T
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    mean = torch.stack([layer(x) for _ in range(4000)]).mean(dim=0)
    torch.testing.assert_close(mean, whole, rtol=0.1, atol=0.4)
    layer.eval()
    torch.testing.assert_close(layer(x), whole)
    assert torch.equal(layer(x), layer(x))


def make_layer(shape: tuple[int, int], r: int, scaling: float, base: str) -> LoRALayer:
    d, k = shape
    module = {"linear": nn.Linear, "conv1d": lambda k, d: Conv1D(d, k), "embedding": nn.Embedding}[base](k, d)
    layer = LoRALayer(module, (Part("q", r, scaling),))
    randomise(layer)
    return layer


layers = {
    "shape": st.tuples(st.integers(1, 12), st.integers(1, 12)),
    "base": st.sampled_from(["linear", "conv1d", "embedding"]),
    "scaling": st.floats(0.01, 100),
    "data": st.data(),
}


@settings(max_examples=60, deadline=None)
@given(**layers)
def test_delta_w(shape: tuple[int, int], base: str, scaling: float, data: st.DataObject) -> None:
    """delta_w has the shape of W0 and rank <= r, is linear in the scaling, and is what forward adds and merge adds."""
    r = data.draw(st.integers(1, min(shape)))
    layer, unit = make_layer(shape, r, scaling, base), make_layer(shape, r, 1.0, base)
    delta = layer.delta_w("q")
    assert delta.shape == shape
    assert torch.linalg.matrix_rank(delta) <= r
    torch.testing.assert_close(delta, scaling * unit.delta_w("q"))
    every = torch.arange(shape[1]) if base == "embedding" else torch.eye(shape[1])
    added = (layer(every) - layer.base(every)).T
    torch.testing.assert_close(added, delta, rtol=1e-4, atol=1e-4 * scaling)
    W0, h = layer.weight.clone(), layer(every)
    layer.merge()
    torch.testing.assert_close(layer(every), h, rtol=1e-4, atol=1e-4 * scaling)
    layer.unmerge()
    assert torch.equal(layer.weight, W0)


@settings(max_examples=60, deadline=None)
@given(r=st.integers(1, 64), alpha=st.floats(0.01, 1000), factor=st.floats(0.01, 100))
def test_scaling(r: int, alpha: float, factor: float) -> None:
    standard, rslora = (LoRAConfig(r=r, alpha=alpha, scaling=scaling) for scaling in ("standard", "rslora"))
    assert standard.scale("q") * r == pytest.approx(alpha)
    assert rslora.scale("q") == pytest.approx(standard.scale("q") * r**0.5)
    assert LoRAConfig(r=r, alpha=factor * alpha).scale("q") == pytest.approx(factor * standard.scale("q"))
