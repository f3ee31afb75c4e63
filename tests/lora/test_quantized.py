"""Quantised base weights: what they store and stand for, and LoRA on top of them."""

import sys
from collections.abc import Callable
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_bytes import stored_bytes
from tiny_models import RESIDUAL, logits, randomise, tiny_model
from torch import Tensor, nn
from torch.nn import functional

from lora import io, quantized
from lora.config import QUANTIZATIONS, InputError, LoRAConfig
from lora.layer import LoRALayer, Part, shape, turned
from lora.model import eject, freeze, inject, lora_layers, merge, trainable_parameters, unmerge
from lora.variants import loftq

TOLERANCE = {"nf4": 1e-5, "int8": 0.05, "int2": 1e-5}  # of outputs, merged and not: int8 rounds x, but not when merged
ALL_TYPES = ("q", "k", "v", "o", "up", "gate", "down")
# The 16 values of NF4, as Dettmers et al. 2023 list them in appendix E.
NEGATIVE = (-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0)
POSITIVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1)
NF4 = torch.tensor([*NEGATIVE, *POSITIVE])


def _weight(d: int = 128, k: int = 192, seed: int = 0) -> Tensor:
    return torch.randn(d, k, generator=torch.Generator().manual_seed(seed)) * 0.1


def _error(weight: Tensor, layer: nn.Module) -> float:
    return (weight - quantized.dequantize(layer).float()).norm().item() / weight.norm().item()


def _llama() -> nn.Module:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}
    return tiny_model("llama", **sizes)


def _quantise(model: nn.Module, kind: str) -> Callable[[], dict[str, Tensor]]:
    """Quantise all in the layers of a tiny model; returns what gives the weights from before."""
    layers = [name for name, module in model.named_modules() if "layer" in name or ".h." in name if _linear(module)]
    weights = {}
    for name in layers:
        base = model.get_submodule(name)
        weights[name] = turned(base, base.get_parameter("weight").detach()).contiguous().clone()
        model.set_submodule(name, quantized.quantize(weights[name], base.bias, kind).eval())
    return lambda: weights


def _linear(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear", "Conv1D")


def test_nf4_holds_the_nearest_code_of_every_weight() -> None:
    weight = _weight()
    layer = quantized.quantize(weight, None, "nf4")
    blocks, found = weight.reshape(-1, 64), quantized.dequantize(layer).reshape(-1, 64)
    top = blocks.abs().amax(1, keepdim=True)
    held = found.abs().amax(1, keepdim=True)  # the scale after its own quantisation
    assert ((held - top).abs() < 0.05 * top).all() and not torch.equal(held, top)
    nearest = (blocks / top).unsqueeze(-1).sub(NF4).abs().argmin(-1)
    assert torch.allclose(found, NF4[nearest] * held, atol=1e-6)


def test_int8_rounds_every_row_to_127_steps() -> None:
    weight = _weight().half().float()
    layer = quantized.quantize(weight, None, "int8")
    step = weight.abs().amax(1, keepdim=True) / 127
    codes = quantized.dequantize(layer) / step
    assert torch.allclose(codes, codes.round(), atol=1e-3) and codes.abs().amax(1).allclose(torch.tensor(127.0))
    assert (codes - weight / step).abs().max() < 0.6  # rounded in fp16


def test_int2_holds_four_values_in_every_group() -> None:
    weight = _weight()
    layer = quantized.quantize(weight, None, "int2")
    codes, scale, zero = quantized.tensors(layer)
    assert codes.dtype == torch.uint8 and codes.numel() * 4 == weight.numel()
    unpacked = torch.cat([codes >> shift & 3 for shift in (6, 4, 2, 0)])  # 16 rows of a byte are 64 codes
    found = ((unpacked.float() - zero) * scale).reshape(weight.shape)
    assert torch.allclose(quantized.dequantize(layer), found, atol=1e-6)
    for row in (0, 1):  # a group is 64 outputs, 2 apart, of one input
        assert max(len(group.unique()) for group in found[row::2].T) <= 4


@pytest.mark.parametrize(("kind", "low", "high"), [("nf4", 0.08, 0.1), ("int8", 0.004, 0.008), ("int2", 0.35, 0.5)])
def test_error_of_normal_weights(kind: str, low: float, high: float) -> None:
    assert low < _error(_weight(), quantized.quantize(_weight(), None, kind)) < high


@pytest.mark.parametrize("kind", QUANTIZATIONS)
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_stored_bytes_are_those_of_the_tensors(kind: str, rows: int, columns: int, dtype: torch.dtype) -> None:
    d, k = 64 * rows, 64 * columns
    layer = quantized.quantize(_weight(d, k).to(dtype), None, kind)
    assert stored_bytes(kind, d, k, dtype) == sum(tensor.nbytes for tensor in quantized.tensors(layer))
    assert len({tensor.data_ptr() for tensor in quantized.tensors(layer)}) == len(quantized.tensors(layer))


def test_bits_of_a_large_weight() -> None:
    bits = {kind: 8 * stored_bytes(kind, 4096, 4096) / 4096**2 for kind in QUANTIZATIONS}
    assert bits["nf4"] == pytest.approx(4.127, abs=2e-3)  # QLoRA, section 3: 4 + 8 / 64 + 32 / (64 * 256)
    assert bits["int8"] == pytest.approx(8, abs=0.01)
    assert bits["int2"] == 2.5


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_layer_computes_with_what_its_codes_stand_for(kind: str, dtype: torch.dtype, training: bool) -> None:
    """Outputs and gradients are those of a Linear with W0; int8 rounds x too when it does not train."""
    bias = _weight(1, 128)[0]
    layer = quantized.quantize(_weight().to(dtype), bias.to(dtype), kind).train(training)
    w0, wanted = quantized.dequantize(layer), _weight(6, 128, 2).to(dtype)
    x = _weight(6, 192, 1).to(dtype).requires_grad_()
    found = layer(x)
    (gradient,) = torch.autograd.grad((found * wanted).sum(), x)
    tolerance = 1e-6 if dtype == torch.float32 else 0.01
    expected = functional.linear(x, w0, bias.to(dtype))
    assert (found - expected).norm() <= (0.01 if kind == "int8" and not training else tolerance) * expected.norm()
    assert (gradient - wanted @ w0).norm() <= tolerance * (wanted @ w0).norm()
    with torch.no_grad():
        layer.eval()(x)
    assert torch.equal(quantized.dequantize(layer), w0)


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_inputs_in_fp32_under_autocast(kind: str) -> None:
    """As layer norms give them on a GPU: the gradient comes back in fp32."""
    layer = quantized.quantize(_weight().bfloat16(), None, kind).train()
    x, wanted = _weight(6, 192, 1).requires_grad_(), _weight(6, 128, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = layer(x)
    (gradient,) = torch.autograd.grad((h.float() * wanted).sum(), x)
    exact = wanted @ quantized.dequantize(layer).float()
    assert gradient.dtype == torch.float32 and (gradient - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_lora_trains_as_on_a_linear_of_the_same_weights(kind: str) -> None:
    layer = quantized.quantize(_weight(), None, kind)
    parts = (Part("q", 4, 2.0),)
    ours, theirs = (LoRALayer(base, parts) for base in (layer, quantized.linear(quantized.dequantize(layer), None)))
    nn.init.normal_(ours.lora_B["q"])
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if "lora" in name}, strict=False)
    x = _weight(5, 192, 3)
    gradients = []
    for adapted in (ours, theirs):
        adapted(x).square().sum().backward()
        gradients.append([adapted.lora_A["q"].grad, adapted.lora_B["q"].grad])
    for mine, other in zip(*gradients, strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_merge_unmerge_and_eject(kind: str) -> None:
    """Merged or not the logits are the same, to int8's rounding of x, and every code comes back."""
    model = _llama()
    _quantise(model, kind)
    bases = {name: module for name, module in model.named_modules() if quantized.is_quantized(module)}
    before = {name: [tensor.clone() for tensor in quantized.tensors(base)] for name, base in bases.items()}
    plain = logits(model)
    inject(model, LoRAConfig(r=4, weight_types=ALL_TYPES))
    assert torch.equal(logits(model), plain)
    randomise(model)
    out = logits(model)
    merge(model)
    assert not any(quantized.is_quantized(module) for module in model.modules())
    merged = logits(model)
    assert (merged - out).norm() < TOLERANCE[kind] * out.norm()
    assert (merged - plain).norm() > 0.1 * plain.norm()
    layer = dict(lora_layers(model))["model.layers.0.mlp.down_proj"]
    w0 = quantized.dequantize(bases["model.layers.0.mlp.down_proj"])
    assert torch.equal(layer.weight, w0 + layer.delta_w("down")) and torch.equal(layer.w0(layer.parts[0]), w0)
    unmerge(model)
    assert torch.equal(logits(model), out)
    merge(model)
    eject(model)
    assert torch.equal(logits(model), plain)
    for name, base in bases.items():
        assert model.get_submodule(name) is base
        assert all(torch.equal(*pair) for pair in zip(quantized.tensors(base), before[name], strict=True))


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_gradients_after_an_evaluation(kind: str) -> None:
    """bitsandbytes would pack 4-bit weights for inference in it, and no gradient would pass from then on."""
    model = _llama().bfloat16()
    _quantise(model, kind)
    inject(model, LoRAConfig(r=2, weight_types=("q",)))
    freeze(model)
    randomise(model)
    x = torch.tensor([[5, 9, 17, 33]])

    def gradients() -> list[Tensor]:
        model.train().zero_grad()
        model(input_ids=x).logits.square().mean().backward()
        return [parameter.grad.clone() for parameter in trainable_parameters(model).values()]

    before = gradients()
    with torch.no_grad():
        model.eval()(input_ids=x)
    assert all(torch.equal(*pair) for pair in zip(before, gradients(), strict=True)) and before[0].any()


def test_layers_that_bitsandbytes_has_spoiled() -> None:
    layer = quantized.quantize(_weight(), None, "nf4")
    layer.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(InputError, match="packed by bitsandbytes for inference"):
        LoRALayer(layer, (Part("q", 2, 1.0),))
    crossing = bnb.nn.Linear4bit(96, 64, quant_type="nf4").to("cpu")
    with pytest.raises(InputError, match="96 inputs in blocks of 64"):
        LoRALayer(crossing, (Part("q", 2, 1.0),))


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_dora_has_the_directions_of_what_the_codes_stand_for(kind: str) -> None:
    layer = quantized.quantize(_weight(), None, kind)
    parts = (Part("q", 4, 2.0, variant="dora"),)
    ours, theirs = (LoRALayer(base, parts) for base in (layer, quantized.linear(quantized.dequantize(layer), None)))
    randomise(ours)
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if "lora" in name}, strict=False)
    x = _weight(5, 192, 3)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)
    out = ours(x)
    ours.merge()
    assert torch.allclose(ours(x), out, atol=1e-4)


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_slices_of_a_fused_projection(kind: str) -> None:
    """GPT-2's c_attn, a Conv1D of q, k and v, becomes one quantised layer; q's update is in q's rows."""
    model = tiny_model("gpt2", n_embd=64, n_head=2)
    _quantise(model, kind)
    inject(model, LoRAConfig(r=2, weight_types=("q", "down")))
    randomise(model)
    attention = dict(lora_layers(model))["transformer.h.0.attn.c_attn"]
    assert shape(attention.base) == (192, 64) and attention.w0(attention.parts[0]).shape == (64, 64)
    out = logits(model)
    merge(model)
    assert (logits(model) - out).norm() < TOLERANCE[kind] * out.norm()
    update = attention.weight - quantized.dequantize(attention.kept_base[0])
    assert torch.allclose(update[:64], attention.delta_w("q"), atol=1e-6) and not update[64:].any()


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    """Onto the same quantised model exactly; onto the model before quantisation where W0 has about the same norm."""
    model = _llama()
    _quantise(model, kind)
    inject(model, LoRAConfig(r=4))
    randomise(model)
    freeze(model)
    io.save(model, tmp_path)
    again = _llama()
    _quantise(again, kind)
    io.load(again, tmp_path)
    assert torch.equal(logits(again), logits(model))
    target = io.read(tmp_path).targets[0]
    layer = dict(lora_layers(model))[target.module]
    assert target.w0_norm == pytest.approx(quantized.dequantize(layer.base).norm().item())
    plain = _llama()
    if kind == "int2":
        with pytest.raises(InputError, match="is for another model"):
            io.load(plain, tmp_path)
    else:
        io.load(plain, tmp_path)
        assert torch.equal(dict(lora_layers(plain))[target.module].delta_w("q"), layer.delta_w("q"))


def _products(found: list[tuple[Tensor, Tensor]], blocks: list[Part], weight: Tensor) -> Tensor:
    low = torch.zeros_like(weight)
    for (A, B), block in zip(found, blocks, strict=True):
        low[block.rows] = block.scaling * (B @ A)
    return low


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_loftq_comes_no_farther_with_any_step(kind: str) -> None:
    weight = _weight()
    base = quantized.quantize(weight, None, kind)
    blocks = [Part("q", 8, 2.0)]
    errors = [_error(weight, base)]
    for steps in range(1, 6):
        layer, found = loftq.nearest(base, weight, blocks, steps)
        errors.append(_error(weight - _products(found, blocks, weight), layer))
    assert errors[1] < 0.97 * errors[0] and errors == sorted(errors, reverse=True)
    if kind == "int2":
        assert errors[5] < 0.99 * errors[1]
    assert torch.equal(quantized.dequantize(base), quantized.dequantize(quantized.quantize(weight, None, kind)))


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_one_step_of_loftq_is_the_svd_of_the_residual(kind: str) -> None:
    """Each slice has its own, of its own rank, and the codes are those of the weight itself."""
    weight = _weight()
    base = quantized.quantize(weight, None, kind)
    blocks = [Part("q", 4, 2.0, slice(0, 64)), Part("k", 2, 0.5, torch.arange(64, 128))]
    layer, found = loftq.nearest(base, weight, blocks, steps=1)
    residual = (weight - quantized.dequantize(base)).numpy()
    assert torch.equal(quantized.dequantize(layer), quantized.dequantize(base))
    for (A, B), block in zip(found, blocks, strict=True):
        U, S, Vt = np.linalg.svd(residual[block.rows], full_matrices=False)
        best = U[:, : block.r] * S[: block.r] @ Vt[: block.r]
        assert np.allclose(block.scaling * (B @ A).numpy(), best, atol=1e-5)
        assert torch.allclose(A @ A.T, B.T @ B, atol=1e-5)  # the root of the singular values each


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_loftq_in_a_model(kind: str, tmp_path: Path) -> None:
    """It starts nearer to the model before quantisation, merges, is stored with its own weights, and can be ejected."""
    model, original = _llama(), logits(_llama())
    weights = _quantise(model, kind)
    config = LoRAConfig(r=8, weight_types=ALL_TYPES, init="loftq")
    inject(model, config, pretrained=weights)
    layers = dict(lora_layers(model))
    name = "model.layers.1.mlp.up_proj"
    plain = quantized.quantize(weights()[name], None, kind)
    start = weights()[name] - layers[name].delta_w("up")
    assert _error(start, layers[name].base) < _error(weights()[name], plain)
    with torch.no_grad():
        for layer in layers.values():
            for B in layer.lora_B.values():
                B.add_(0.01)
    out = logits(model)
    assert (out - original).norm() < 2 * original.norm()
    freeze(model)
    io.save(model, tmp_path)
    again = _llama()
    weights = _quantise(again, kind)
    with pytest.raises(InputError, match="before quantisation"):
        io.load(again, tmp_path)
    io.load(again, tmp_path, weights)
    assert torch.equal(logits(again), out)
    merge(model)
    assert (logits(model) - out).norm() < TOLERANCE[kind] * out.norm()
    eject(model)
    assert torch.equal(quantized.dequantize(model.get_submodule(name)), quantized.dequantize(layers[name].base))
    with pytest.raises(InputError, match="is not quantised"):
        io.load(_llama(), tmp_path)


@pytest.mark.parametrize("init", RESIDUAL)
def test_starts_that_change_the_base_weight(init: str) -> None:
    model = _llama()
    _quantise(model, "nf4")
    with pytest.raises(InputError, match=f"init {init} takes its start out of the base weight, which is quantised"):
        inject(model, LoRAConfig(init=init), backward=lambda: None)
    assert not any(lora_layers(model))


def test_what_loftq_cannot_start_from() -> None:
    with pytest.raises(InputError, match="this Linear is not quantised"):
        inject(_llama(), LoRAConfig(init="loftq"), pretrained=dict)
    model = _llama()
    _quantise(model, "nf4")
    with pytest.raises(InputError, match="weights before quantisation: give inject `pretrained`"):
        inject(model, LoRAConfig(init="loftq"))
    with pytest.raises(InputError, match="init loftq is not for DoRA"):
        LoRAConfig(init="loftq", variant="dora")


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_quantised_weights_are_not_trained(kind: str) -> None:
    model = _llama()
    _quantise(model, kind)
    inject(model, LoRAConfig(weight_types=("q",)))
    with pytest.raises(InputError, match=r"_proj\.\w+ is to be trained, but it is quantised"):
        freeze(model, ["model.layers.1.mlp"])


def test_layers_made_elsewhere_keep_their_settings() -> None:
    foreign = bnb.nn.Linear4bit(128, 64, quant_type="fp4", compress_statistics=False)
    weight = foreign.weight.data.clone()
    foreign = foreign.to("cpu")
    again = quantized.requantize(foreign, weight)
    assert len(quantized.tensors(again)) == 3 and again.weight.quant_state.quant_type == "fp4"
    assert torch.equal(quantized.dequantize(again), quantized.dequantize(foreign))
    assert torch.equal(again.bias, foreign.bias)


def test_errors_of_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="int2 takes weights in groups of 64 outputs, but there are 96: choose int8"):
        quantized.quantize(_weight(96, 64), None, "int2")
    with pytest.raises(InputError, match="nf4 takes weights in groups of 64 inputs, but there are 96: choose int8"):
        quantized.quantize(_weight(64, 96), None, "nf4")
    monkeypatch.setitem(sys.modules, "hqq.core.quantize", None)
    with pytest.raises(InputError, match=r"int2 needs the package hqq .*: pip install hqq"):
        quantized.quantize(_weight(), None, "int2")
