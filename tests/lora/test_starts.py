"""Where A and B start, and what follows: the pretrained model at step 0, and the saddle at A = B = 0."""

import peft
import pytest
import torch
from test_residual_starts import adapt, loss
from tiny_models import RESIDUAL, STARTS, assert_equal, every_type, logits, tiny_model
from torch import nn

from lora.config import LoRAConfig
from lora.layer import LoRALayer, Part
from lora.model import freeze, inject, lora_layers, trainable_parameters

NO_CHANGE = tuple(init for init in STARTS if init != "both_gaussian")


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("init", NO_CHANGE)
def test_training_starts_at_the_pretrained_model(kind: str, init: str) -> None:
    model = tiny_model(kind)
    out = logits(model)
    adapt(model, every_type(kind, init=init))
    if init in RESIDUAL:
        assert_equal(logits(model), out)
    else:
        assert torch.equal(logits(model), out)


def test_both_gaussian_starts_elsewhere() -> None:
    model = tiny_model("bert")
    out = logits(model)
    inject(model, LoRAConfig(r=2, init="both_gaussian"))
    assert (logits(model) - out).abs().max() > 1e-2 * out.abs().max()


@pytest.mark.parametrize(
    ("init", "deviation_A", "deviation_B"),
    [
        ("gaussian", 256**-0.5, 0.0),
        ("kaiming", (3 * 256) ** -0.5, 0.0),
        ("gaussian_b", 0.0, 64**-0.5),
        ("both_gaussian", 256**-0.5, 64**-0.5),
        ("both_zero", 0.0, 0.0),
    ],
)
def test_draws(init: str, deviation_A: float, deviation_B: float) -> None:
    torch.manual_seed(0)
    layer = LoRALayer(nn.Linear(256, 128), (Part("q", 64, 1.0),), init=init)
    assert layer.lora_A["q"].std().item() == pytest.approx(deviation_A, rel=0.03)
    assert layer.lora_B["q"].std().item() == pytest.approx(deviation_B, rel=0.03)


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_the_first_draw_is_a(init: str) -> None:
    """Stored runs come out again only while A is what the seed's first draw gives."""
    torch.manual_seed(4)
    layer = LoRALayer(nn.Linear(16, 8), (Part("q", 3, 1.0),), init=init)
    nn.Linear(16, 8)
    torch.manual_seed(4)
    nn.Linear(16, 8)
    A = torch.empty(3, 16)
    expected = A.normal_(std=0.25) if init == "gaussian" else nn.init.kaiming_uniform_(A, a=5**0.5)
    assert torch.equal(layer.lora_A["q"], expected)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (24, 24)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    d, k = shape
    r = min(d, k)
    layer = LoRALayer(nn.Linear(k, d), (Part("q", r, 1.0),), init="orthogonal")
    torch.testing.assert_close(layer.lora_A["q"] @ layer.lora_A["q"].T, torch.eye(r))
    assert not layer.lora_B["q"].any()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_both_zero_is_a_saddle(kind: str) -> None:
    """AdamW moves the head, but A and B have gradients that are exactly zero and never leave zero."""
    model = tiny_model(kind)
    inject(model, every_type(kind, init="both_zero"))
    head = {"bert": "classifier", "gpt2": "transformer.ln_f"}[kind]
    freeze(model, [head])
    before = model.get_submodule(head).weight.clone()
    optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
        for _, layer in lora_layers(model):
            for matrix in (*layer.lora_A.values(), *layer.lora_B.values()):
                assert matrix.grad is not None and not matrix.grad.any()
                assert not matrix.any()
    assert not torch.equal(model.get_submodule(head).weight, before)


@pytest.mark.parametrize(("init", "first"), [("gaussian", "B"), ("gaussian_b", "A"), ("both_gaussian", "AB")])
def test_which_matrix_has_the_first_gradient(init: str, first: str) -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2, init=init))
    loss(model).backward()
    for _, layer in lora_layers(model):
        for side, matrices in (("A", layer.lora_A), ("B", layer.lora_B)):
            for matrix in matrices.values():
                assert matrix.grad.any().item() is (side in first)


@pytest.mark.parametrize("r", [1, 4, 16])
def test_rslora_scales_as_peft(r: int) -> None:
    model = peft.get_peft_model(
        tiny_model("bert"), peft.LoraConfig(r=r, lora_alpha=5, target_modules=["query"], use_rslora=True)
    )
    theirs = model.base_model.model.bert.encoder.layer[0].attention.self.query.scaling["default"]
    assert LoRAConfig(r=r, alpha=5, scaling="rslora").scale("q") == pytest.approx(theirs)
