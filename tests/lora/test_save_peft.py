"""Everything that save_peft writes is opened by peft, with the same outputs: all inits, variants, quantisations."""

from pathlib import Path

import peft
import pytest
import torch
from tiny_models import RESIDUAL, STARTS, assert_equal, logits, randomise, tiny_model
from torch import Tensor, nn

from lora import quantized
from lora.config import QUANTIZATIONS, InputError, LoRAConfig
from lora.formats.peft_out import save_peft
from lora.interop import load_peft
from lora.layer import turned
from lora.model import freeze, inject

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}


def train(model: nn.Module) -> None:
    """Move A and B from where they start, as training would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("scaling", ["standard", "rslora"])
@pytest.mark.parametrize("init", STARTS)
def test_every_start(init: str, scaling: str, variant: str, tmp_path: Path) -> None:
    kind = "gpt2" if scaling == "rslora" else "llama"
    if variant == "dora" and init in RESIDUAL:
        pytest.skip("not for DoRA: LoRAConfig refuses it")
    ours = tiny_model(kind)
    config = LoRAConfig(r=3, alpha=5, weight_types=("q", "v", "down"), init=init, scaling=scaling, variant=variant)
    inject(ours, config, backward=lambda: logits(ours).square().mean().backward())
    freeze(ours)
    train(ours)
    save_peft(ours, tmp_path)
    assert_equal(logits(peft.PeftModel.from_pretrained(tiny_model(kind), tmp_path)), logits(ours))
    back = tiny_model(kind)
    load_peft(back, tmp_path)
    assert_equal(logits(back), logits(ours))


def quantise(model: nn.Module, kind: str) -> dict[str, Tensor]:
    """Quantise the layers' linear modules; the weights from before."""
    weights = {}
    for name, module in list(model.named_modules()):
        if "layers" in name and isinstance(module, nn.Linear):
            weights[name] = turned(module, module.weight.detach()).contiguous().clone()
            model.set_submodule(name, quantized.quantize(weights[name], module.bias, kind).eval())
    return weights


def plain(model: nn.Module) -> nn.Module:
    """The same model with linear modules of what the codes stand for."""
    for name, module in list(model.named_modules()):
        if quantized.is_quantized(module):
            model.set_submodule(name, quantized.linear(quantized.dequantize(module), module.bias))
    return model


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_every_quantisation(kind: str, variant: str, tmp_path: Path) -> None:
    ours = tiny_model("llama", **SIZES)
    quantise(ours, kind)
    inject(ours, LoRAConfig(r=3, alpha=5, weight_types=("q", "v", "down"), variant=variant))
    freeze(ours)
    randomise(ours)
    save_peft(ours, tmp_path)
    same = tiny_model("llama", **SIZES)
    quantise(same, kind)
    theirs = logits(peft.PeftModel.from_pretrained(plain(same), tmp_path))
    error = (logits(ours) - theirs).norm() / theirs.norm()
    assert error < (0.05 if kind == "int8" else 1e-4)  # int8 rounds x too


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_start_from_loftq_is_refused(kind: str, tmp_path: Path) -> None:
    """It belongs to weights that it has quantised anew: on the pretrained ones, quantised, outputs would be others."""
    ours = tiny_model("llama", **SIZES)
    weights = quantise(ours, kind)
    inject(ours, LoRAConfig(r=3, weight_types=("q",), init="loftq"), pretrained=lambda: weights)
    freeze(ours)
    with pytest.raises(InputError, match="loftq belong to weights that it has quantised anew"):
        save_peft(ours, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_head_whose_name_another_module_ends_with_is_refused(tmp_path: Path) -> None:
    """peft finds modules to save by the end of their names: it would look for both, and not find one."""
    model = tiny_model("bert")
    model.other_classifier = nn.Linear(2, 2)
    inject(model, LoRAConfig(r=2))
    freeze(model, ["classifier"])
    with pytest.raises(InputError, match="peft cannot store 'classifier', .* it takes 'other_classifier' for it too"):
        save_peft(model, tmp_path)


def test_a_head_with_an_adapter_in_it_is_refused(tmp_path: Path) -> None:
    model = tiny_model("roberta")
    model.classifier.register_parameter("scale", nn.Parameter(torch.ones(1)))
    inject(model, LoRAConfig(r=2, modules=("classifier.dense",)))
    freeze(model, ["classifier.scale"])
    with pytest.raises(InputError, match=r"only whole modules without adapters in them \(classifier.dense\)"):
        save_peft(model, tmp_path)
