"""What modules_to_save names must be stored: peft fails to open a folder without it, with a KeyError."""

from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora import interop
from lora.config import InputError, LoRAConfig


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))


@pytest.mark.parametrize(
    ("saved", "gone"),
    [("lm_head", "lm_head"), ("norm", "model.norm"), ("input_layernorm", "layers.1.input_layernorm")],
)
def test_a_saved_module_that_is_not_stored_is_refused_by_name(saved: str, gone: str, tmp_path: Path) -> None:
    lora = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"], modules_to_save=[saved])
    peft.get_peft_model(llama(), lora).save_pretrained(tmp_path)
    interop.load_peft(llama(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    left = {name: tensor for name, tensor in load_file(file).items() if gone not in name}
    assert len(left) < len(load_file(file))
    save_file(left, file, metadata={"format": "pt"})
    with pytest.raises(KeyError):
        peft.PeftModel.from_pretrained(llama(), tmp_path)
    model = llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=f"lacks .*{gone}.*modules_to_save"):
        interop.load_peft(model, tmp_path)
    after = model.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("more", [{"variant": "dora"}, {"init": "pissa"}])
def test_loralib_has_plain_lora_alone(more: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a loralib checkpoint has no"):
        interop.load_loralib(llama(), tmp_path / "lora.pt", LoRAConfig(r=4, weight_types=("q",), **more))
