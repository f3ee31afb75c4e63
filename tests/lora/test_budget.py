"""What LoRA costs and what a budget buys, against counting the parameters that injecting adds."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import ARCHITECTURES, HIDDEN, INNER, LAYERS, every_type, tiny_model
from torch import nn

from lora import budget, targets
from lora.config import InputError, LoRAConfig
from lora.model import freeze, inject, trainable_parameters


def injected(model: nn.Module, config: LoRAConfig) -> int:
    """The number of parameters that `config` adds, found by adding them."""
    before = sum(parameter.numel() for parameter in model.parameters())
    inject(model, config)
    freeze(model)
    trained = sum(parameter.numel() for parameter in trainable_parameters(model).values())
    assert sum(parameter.numel() for parameter in model.parameters()) == before + trained
    return trained


def skeleton(kind: str) -> nn.Module:
    """The pretrained body of a tiny model on the meta device, made from its config alone."""
    with torch.device("meta"):
        body: nn.Module = transformers.AutoModel.from_config(tiny_model(kind).config)
    assert all(parameter.is_meta for parameter in body.parameters())
    return body


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_every_type_costs_what_injecting_adds(kind: str, variant: str) -> None:
    body = skeleton(kind)
    for weight_type in targets.weight_types(body):
        config = LoRAConfig(r=3, weight_types=(weight_type,), variant=variant)
        count = injected(tiny_model(kind), config)
        assert budget.parameters(body, config) == count, weight_type
        assert budget.rank(body, config, count) == 3, weight_type
    config = every_type(kind, variant=variant)
    count = injected(tiny_model(kind), config)
    assert budget.parameters(body, config) == count == budget.parameters(tiny_model(kind), config)
    assert budget.rank(body, config, count) == 2


def test_ranks_of_their_own_layers_and_patterns_count() -> None:
    for config in (
        LoRAConfig(r={"q": 1, "down": 5}, weight_types=("q", "down")),
        LoRAConfig(r=4, weight_types=("v",), layers=(1,)),
        LoRAConfig(r=2, weight_types=(), modules=("*.query_key_value",)),
    ):
        kind = "bloom" if config.modules else "bert"
        assert budget.parameters(skeleton(kind), config) == injected(tiny_model(kind), config)


@settings(max_examples=60, deadline=None)
@given(
    budget_of=st.integers(1, 40_000),
    weight_types=st.sets(st.sampled_from(["q", "k", "v", "o", "up", "down"]), min_size=1),
)
def test_a_budget_is_met_exactly_or_its_neighbours_are_named(budget_of: int, weight_types: set[str]) -> None:
    config = LoRAConfig(weight_types=tuple(weight_types))
    costs = {"up": HIDDEN + INNER, "down": HIDDEN + INNER}
    one = LAYERS * sum(costs.get(weight_type, 2 * HIDDEN) for weight_type in weight_types)
    exact = {one * r: r for r in range(1, HIDDEN + 1)}
    if budget_of in exact:
        assert budget.rank(BERT, config, budget_of) == exact[budget_of]
        return
    with pytest.raises(InputError) as raised:
        budget.rank(BERT, config, budget_of)
    below, above = (max, [b for b in exact if b < budget_of]), (min, [b for b in exact if b > budget_of])
    nearest = [choose(found) for choose, found in (below, above) if found]
    message = str(raised.value)
    assert all(f"{b:,} parameters (r = {exact[b]})" in message for b in nearest)
    assert message.count("(r = ") == len(nearest)
    assert "\n" not in message


BERT = tiny_model("bert")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (300, "exactly 300 parameters: the nearest are 256 parameters (r = 1) and 512 parameters (r = 2); choose one"),
        (255, "the smallest is 256 parameters (r = 1)"),
        (256 * 33, "the largest is 8,192 parameters (r = 32)"),
        (256 * 32 + 1, "the largest is 8,192 parameters (r = 32)"),
        (0, "a whole number of parameters of at least 1"),
        (-256, "a whole number of parameters of at least 1"),
        (True, "a whole number of parameters of at least 1"),
        (256.0, "a whole number of parameters of at least 1"),
    ],
)
def test_a_budget_that_cannot_be_met_is_one_line(number: int, message: str) -> None:
    with pytest.raises(InputError) as raised:
        budget.rank(BERT, LoRAConfig(), number)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_magnitudes_of_dora_are_part_of_its_smallest_budget() -> None:
    config = LoRAConfig(weight_types=("q",), variant="dora")
    one, magnitudes = LAYERS * 2 * HIDDEN, LAYERS * HIDDEN
    assert budget.rank(BERT, config, 2 * one + magnitudes) == 2
    with pytest.raises(InputError, match=rf"the smallest is {one + magnitudes} parameters \(r = 1\)"):
        budget.rank(BERT, config, magnitudes - 1)


def test_a_grouped_key_is_smaller_than_a_query() -> None:
    body = skeleton("llama")
    q, k = (budget.parameters(body, LoRAConfig(r=1, weight_types=(weight_type,))) for weight_type in "qk")
    assert (q, k) == (LAYERS * (32 + 32), LAYERS * (16 + 32))
    assert budget.rank(body, LoRAConfig(weight_types=("k",)), 3 * q) == 4
    with pytest.raises(InputError, match=r"the largest is 1,536 parameters \(r = 16\)"):
        budget.rank(body, LoRAConfig(weight_types=("k",)), 17 * k)


def test_an_unknown_weight_type_is_an_error() -> None:
    with pytest.raises(InputError, match="a bert model has no weight type 'gate'"):
        budget.rank(BERT, LoRAConfig(weight_types=("gate",)), 512)
