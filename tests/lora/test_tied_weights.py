"""Adapters on models whose input and output embeddings are one tensor: the outputs that peft gives, both ways."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import assert_equal, assert_identical, logits, randomise, state, tiny_model
from torch import Tensor, nn

from lora import io
from lora.config import InputError, LoRAConfig
from lora.formats.peft_out import save_peft
from lora.interop import load_peft
from lora.model import base_parameters, freeze, inject

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def tied(rows: int | None = None) -> nn.Module:
    model = tiny_model("llama", tie_word_embeddings=True)
    if rows:
        torch.manual_seed(0)
        model.resize_token_embeddings(rows)
    return model


def train(model: nn.Module) -> None:
    """Move all that is trained, as training would."""
    randomise(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 0.1 * torch.randn_like(parameter)


CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "lora on the head": ({"target_modules": ["q_proj", "lm_head"]}, None),
    "lora on the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, None),
    "lora on both, tied": ({"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True}, None),
    "head saved": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, None),
    "embedding saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, None),
    "both saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, None),
    "saved and tied": (
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"], "ensure_weight_tying": True}, None,
    ),
    "enlarged": ({"target_modules": ["q_proj"]}, 70),
    "enlarged, lora on the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, 70),
    "enlarged, embedding saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, 70),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_in_peft(case: str, tmp_path: Path) -> None:
    options, rows = CASES[case]
    theirs = peft.get_peft_model(tied(rows), peft.LoraConfig(r=4, lora_alpha=12, **options))
    train(theirs)
    theirs.save_pretrained(tmp_path / "peft", save_embedding_layers=True if rows else "auto")
    expected = logits(peft.PeftModel.from_pretrained(tied(rows), tmp_path / "peft"))
    ours = tied(rows)
    pretrained = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    load_peft(ours, tmp_path / "peft")
    assert_equal(logits(ours), expected)
    for name, module in ((EMBEDDING, ours.get_input_embeddings()), (HEAD, ours.get_output_embeddings())):
        saved = options.get("ensure_weight_tying") or any(
            name.endswith(own) for own in options.get("modules_to_save", [])
        )
        if not (saved and "modules_to_save" in options):
            assert torch.equal(module.weight, pretrained[f"{name}.weight"]), f"{name} must stay pretrained"

    freeze(ours, [name.rpartition(".")[0] for name in base_parameters(ours) if name in moved(ours, pretrained)])
    io.save(ours, tmp_path / "own")  # and through the suite's own format
    again = tied(rows)
    io.load(again, tmp_path / "own")
    assert_equal(logits(again), expected)


def moved(model: nn.Module, pretrained: dict[str, Tensor]) -> list[str]:
    return [name for name, own in base_parameters(model).items() if not torch.equal(own, pretrained[name])]


def test_a_vocabulary_that_was_not_enlarged_is_told(tmp_path: Path) -> None:
    theirs = peft.get_peft_model(tied(70), peft.LoraConfig(target_modules=["q_proj"]))
    theirs.save_pretrained(tmp_path, save_embedding_layers=True)
    with pytest.raises(InputError, match=r"\(70, 32\), this one has \(64, 32\).*resize_token_embeddings\(70\)"):
        load_peft(tied(), tmp_path)


def test_two_values_for_one_weight_are_refused(tmp_path: Path) -> None:
    peft.get_peft_model(tied(70), peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path, save_embedding_layers=True
    )
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.lm_head.weight": tensors["base_model.model.lm_head.weight"] + 1}, path)
    model = tied(70)
    before = state(model)
    with pytest.raises(InputError, match=r"different values for (model.embed_tokens|lm_head).weight"):
        load_peft(model, tmp_path)
    assert_identical(model, before)


@pytest.mark.parametrize("trained", [(), (EMBEDDING,)])
@pytest.mark.parametrize("modules", [(HEAD,), (EMBEDDING,), ()])
def test_what_is_written_is_opened_by_peft(modules: tuple[str, ...], trained: tuple[str, ...], tmp_path: Path) -> None:
    ours = tied()
    inject(ours, LoRAConfig(r=3, alpha=6, weight_types=("q",), modules=modules))
    freeze(ours, trained)
    train(ours)
    if modules and trained:  # the adapter's own W0 is trained: peft has no such thing
        with pytest.raises(InputError, match="peft cannot store"):
            save_peft(ours, tmp_path)
        return
    save_peft(ours, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["ensure_weight_tying"] == bool(trained)
    assert_equal(logits(peft.PeftModel.from_pretrained(tied(), tmp_path)), logits(ours))
    back = tied()
    load_peft(back, tmp_path)
    assert_equal(logits(back), logits(ours))
