"""inject and eject change exactly what they say, and the config goes where it says."""

import copy

import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    HIDDEN,
    INPUTS,
    assert_identical,
    every_type,
    logits,
    randomise,
    state,
    tiny_model,
)
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora import targets
from lora.config import InputError, LoRAConfig
from lora.layer import adaptable
from lora.model import (
    base_parameters,
    eject,
    freeze,
    inject,
    lora_layers,
    merge,
    trainable_parameters,
)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_inject_and_eject_change_nothing(kind: str) -> None:
    model = tiny_model(kind)
    before, out = state(model), logits(model)
    modules = [(name, id(module), type(module)) for name, module in model.named_modules()]
    parameters = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    inject(model, every_type(kind))
    assert torch.equal(logits(model), out), "with B = 0 the adapted model is the pretrained one"
    assert list(base_parameters(model)) == [name for name, _ in parameters]
    assert [id(parameter) for parameter in base_parameters(model).values()] == [number for _, number in parameters]
    randomise(model)
    merge(model)
    eject(model)
    assert_identical(model, before)
    assert [(name, id(module), type(module)) for name, module in model.named_modules()] == modules
    assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == parameters
    assert torch.equal(logits(model), out)


def test_injected_layers_follow_the_mode_of_the_model() -> None:
    model = tiny_model("bert")
    for mode in (True, False):
        model.train(mode)
        inject(model, LoRAConfig(r=2, dropout=0.1))
        assert all(layer.training is mode for _, layer in lora_layers(model))
        eject(model)


def test_layers() -> None:
    model = tiny_model("llama", num_hidden_layers=12)
    inject(model, LoRAConfig(r=2, layers=(1, 10)))
    names = [name for name, _ in lora_layers(model)]
    assert names == [f"model.layers.{layer}.self_attn.{x}_proj" for layer in (1, 10) for x in "qv"]


def test_rank_and_alpha_of_each_type() -> None:
    model = tiny_model("bert")
    config = LoRAConfig(r={"q": 2, "up": 5, "*.pooler.dense": 1, "classifier": 2}, alpha=10, weight_types=("q", "up"),
                        modules=("*.pooler.dense", "classifier"))  # fmt: skip
    inject(model, config)
    found = {name: (layer.parts[0].r, layer.parts[0].scaling) for name, layer in lora_layers(model)}
    assert found["bert.encoder.layer.1.attention.self.query"] == (2, 5.0)
    assert found["bert.encoder.layer.0.intermediate.dense"] == (5, 2.0)
    assert found["bert.pooler.dense"] == (1, 10.0)
    assert found["classifier"] == (2, 5.0)
    assert len(found) == 6
    parts = {name: layer.parts[0].name for name, layer in lora_layers(model)}
    assert parts["classifier"] == targets.WHOLE


def test_adapters_start_in_a_fixed_order() -> None:
    """Stored runs come out again only while A's are drawn module by module, and within one in the config's order."""
    model = tiny_model("gpt2")
    torch.manual_seed(5)
    inject(model, LoRAConfig(r=2, weight_types=("v", "q", "o")))
    drawn = [(name, key, A) for name, layer in lora_layers(model) for key, A in layer.lora_A.items()]
    assert [(name.split(".", 2)[2], key) for name, key, _ in drawn] == [
        (f"{layer}.attn.{module}", key)
        for layer in (0, 1)
        for module, key in (("c_attn", "v"), ("c_attn", "q"), ("c_proj", "o"))
    ]
    torch.manual_seed(5)
    for _, _, A in drawn:
        assert torch.equal(A, torch.empty(2, HIDDEN).normal_(std=HIDDEN**-0.5))


def test_freeze() -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2, weight_types=("q",)))
    model.requires_grad_(False)
    freeze(model, ["classifier", "bert.encoder.layer.0.attention.self.query.bias"])
    layer = "bert.encoder.layer.{}.attention.self.query.lora_{}.q"
    expected = {layer.format(index, side) for index in (0, 1) for side in "AB"}
    expected |= {"classifier.weight", "classifier.bias", "bert.encoder.layer.0.attention.self.query.base.bias"}
    assert set(trainable_parameters(model)) == expected
    with pytest.raises(InputError, match="'clasifier' is to be trained, but"):
        freeze(model, ["clasifier"])
    assert set(trainable_parameters(model)) == expected


def test_only_what_the_equation_covers_is_adaptable() -> None:
    assert adaptable(nn.Linear(2, 2))
    assert adaptable(Conv1D(2, 2))
    assert adaptable(nn.Embedding(2, 2))
    assert not adaptable(nn.LayerNorm(2))
    assert not adaptable(nn.Conv1d(2, 2, 1))
    assert not adaptable(nn.MultiheadAttention(4, 2).out_proj)  # never called: an adapter there would do nothing
    assert not adaptable(tiny_model("gemma").get_submodule("model.embed_tokens"))  # scales its output
    integers = nn.Linear(2, 2)
    integers.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    assert not adaptable(integers)


def test_plain_modules_by_pattern() -> None:
    """A model of no known kind; its embedding and both of its linear layers are found."""
    model = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    inject(model, LoRAConfig(r=2, weight_types=(), modules=("*",)))
    assert [name for name, _ in lora_layers(model)] == ["0", "1", "3"]
    model(INPUTS)


def test_adapted_models_can_be_copied_and_moved() -> None:
    model = tiny_model("gpt_neox")
    inject(model, LoRAConfig(r=2, weight_types=("q", "v")))
    randomise(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), logits(model))
    merge(twin)
    assert not any(layer.merged for _, layer in lora_layers(model))
    assert not any("rows" in name for name in model.state_dict())
    twin = tiny_model("gpt_neox")
    inject(twin, LoRAConfig(r=2, weight_types=("q", "v")))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(logits(twin), logits(model))
