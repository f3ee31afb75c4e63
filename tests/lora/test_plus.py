"""LoRA+: B has a learning rate of its own, and everything trained is in exactly one group."""

import math

import pytest
import torch
from test_residual_starts import loss
from tiny_models import tiny_model

from lora.config import InputError, LoRAConfig
from lora.model import freeze, inject, lora_layers, trainable_parameters
from lora.variants.plus import parameter_groups


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_groups(variant: str) -> None:
    model = tiny_model("gpt2")
    inject(model, LoRAConfig(r=2, weight_types=("q", "v", "o"), variant=variant))
    freeze(model, ["transformer.ln_f"])
    slow, fast = parameter_groups(model, 1e-3, 16)
    assert slow["lr"] == 1e-3
    assert fast["lr"] == pytest.approx(1.6e-2)
    Bs = [B for _, layer in lora_layers(model) for B in layer.lora_B.values()]
    assert len(Bs) == 6
    assert {id(B) for B in Bs} == {id(parameter) for parameter in fast["params"]}
    together = [id(parameter) for parameter in (*slow["params"], *fast["params"])]
    assert sorted(together) == sorted(id(parameter) for parameter in trainable_parameters(model).values())


def test_b_moves_faster() -> None:
    """Plain gradient descent: a step is lr times the gradient, lr_ratio times that for B."""
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2, init="both_gaussian"))
    freeze(model, ["classifier"])
    before = {name: parameter.detach().clone() for name, parameter in trainable_parameters(model).items()}
    loss(model).backward()
    torch.optim.SGD(parameter_groups(model, 1e-2, 4.0)).step()
    for name, parameter in trainable_parameters(model).items():
        lr = 4e-2 if "lora_B" in name else 1e-2
        torch.testing.assert_close(parameter.detach(), before[name] - lr * parameter.grad)


@pytest.mark.parametrize("ratio", [0, -2.0, math.nan, math.inf, True, "16", None])
def test_bad_ratios(ratio: object) -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2))
    with pytest.raises(InputError, match="lr_ratio = .*: LoRA\\+ needs a positive number") as raised:
        parameter_groups(model, 1e-3, ratio)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_no_adapters() -> None:
    with pytest.raises(InputError, match="no B of an adapter is trained"):
        parameter_groups(tiny_model("bert"), 1e-3, 16)
