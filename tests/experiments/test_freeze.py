"""Freeze: the last layers, as ft_top2 but so many."""

import pytest
import torch
from command import Cli
from networks import BATCH, BLOCK, KINDS, LAYERS, adapted, network, train

from lora.config import InputError
from lora.model import trainable_parameters


@pytest.mark.parametrize("count", [1, LAYERS])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layers_and_the_head_are_trained(kind: str, count: int) -> None:
    layers = tuple(BLOCK[kind].format(LAYERS - 1 - back) + "." for back in range(count))
    model = network(kind)
    body = f"{model.base_model_prefix}."
    expected = {name for name, _ in model.named_parameters() if name.startswith(layers) or not name.startswith(body)}
    assert set(trainable_parameters(adapted(kind, {"name": "freeze", "layers": count}))) == expected


def test_two_layers_are_ft_top2() -> None:
    found = []
    for name in ("freeze", "ft_top2"):
        method = {"name": name, "layers": 2}
        model = adapted("llama", method)
        train(model, method, BATCH)
        found.append(trainable_parameters(model))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize(("layers", "match"), [(LAYERS + 1, "the model has 3 layers"), (0, "of at least 1")])
def test_layers_that_are_not_there(layers: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        adapted("bert", {"name": "freeze", "layers": layers})


def test_the_command(cli: Cli, tiny: list[str]) -> None:
    result = cli(*tiny, "method=freeze", "method.layers=1")
    assert result.code == 0, result.err
    assert "freeze layers=1" in result.out
    result = cli(*tiny, "method=freeze")
    assert result.code == 2
    assert "error: method.layers = 3: the model has 2 layers" in result.err + result.out
