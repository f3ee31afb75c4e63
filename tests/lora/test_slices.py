"""The rows of a fused projection are the ones that the model itself uses as q, k, v, gate and up."""

import importlib
from collections.abc import Callable

import pytest
import torch
from tiny_models import logits, randomise, tiny_model
from torch import Tensor, nn

from lora.config import LoRAConfig
from lora.model import inject, lora_layers

Heads = dict[str, Tensor]  # q, k, v -> (batch, heads, positions, width of a head)


def record(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[Heads]:
    """What the model's own code hands to its attention, layer by layer. Rotary embeddings leave position 0 as it is."""
    calls: list[Heads] = []
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")

    def spy(original: Callable[..., object], split: Callable[..., tuple[Tensor, ...]]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            result = original(*args, **kwargs)
            calls.append(dict(zip("qkv", split(args, result), strict=True)))
            return result

        return wrapped

    if kind == "bloom":  # splits in a method and attends in place
        attention = module.BloomAttention
        monkeypatch.setattr(attention, "_reshape", spy(attention._reshape, lambda args, result: result))
    else:  # eager_attention_forward(module, query, key, value, …)
        eager = module.eager_attention_forward
        monkeypatch.setattr(module, "eager_attention_forward", spy(eager, lambda args, result: args[1:4]))
    return calls


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "bloom", "phi3"])
@pytest.mark.parametrize("weight_type", ["q", "k", "v"])
def test_rows_are_what_the_model_calls_them(kind: str, weight_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record(kind, monkeypatch)
    model = tiny_model(kind)
    logits(model)
    before = calls[0]
    inject(model, LoRAConfig(r=3, weight_types=(weight_type,)))
    randomise(model)
    calls.clear()
    layer = next(layer for _, layer in lora_layers(model))
    inputs: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    logits(model)
    after = calls[0]
    for name in "qkv":
        change = (after[name] - before[name])[:, :, 0]  # (batch, heads, width) of position 0
        expected = torch.zeros_like(change)
        if name == weight_type:
            expected = (inputs[0][:, 0] @ layer.delta_w(weight_type).T).view_as(change)
            assert expected.abs().max() > 0.1
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-5)


def down_inputs(model: nn.Module) -> Tensor:
    """What the first layer's MLP computes from gate and up: up * act(gate)."""
    seen: list[Tensor] = []
    down = model.get_submodule("model.layers.0.mlp.down_proj")
    handle = down.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits(model)
    handle.remove()
    return seen[0]


def test_phi3_up_is_the_linear_half() -> None:
    """up * act(gate) is linear in the update of up, not in that of gate."""

    def curvature(weight_type: str) -> float:
        outputs = [down_inputs(tiny_model("phi3"))]
        for alpha in (1.0, 2.0):
            model = tiny_model("phi3")
            inject(model, LoRAConfig(r=2, alpha=alpha, weight_types=(weight_type,)))
            randomise(model)
            outputs.append(down_inputs(model))
        zero, one, two = outputs
        assert (one - zero).abs().max() > 0.01
        return ((two - zero) - 2 * (one - zero)).abs().max().item()

    assert curvature("up") < 1e-4
    assert curvature("gate") > 1e-2
