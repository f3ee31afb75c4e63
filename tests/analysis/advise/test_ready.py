"""What is to be pasted means in peft what it means here: the same modules, with the same ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import yaml
from tiny_models import tiny_model

from analysis.advise import ready
from analysis.advise.subject import Asked, Subject
from lora.model import inject, lora_layers

RANKS = {
    "bert": {"q": 2, "v": 5, "o": 3, "down": 3},
    "llama": {"q": 2, "k": 4, "up": 2, "gate": 2, "down": 1},
    "opt": {"v": 4, "o": 4, "up": 2},
    "gpt2": {"o": 2, "up": 4},
}


def ours(kind: str, subject: Subject, ranks: dict[str, int]) -> dict[str, int]:
    model = tiny_model(kind)
    inject(model, subject.lora(ranks))
    return {name: max(part.r for part in layer.parts) for name, layer in lora_layers(model)}


def theirs(kind: str, config: peft.LoraConfig) -> dict[str, int]:
    model = peft.get_peft_model(tiny_model(kind), config)
    layers = {name: one for name, one in model.named_modules() if isinstance(one, peft.tuners.lora.LoraLayer)}
    return {name.removeprefix("base_model.model."): layer.r["default"] for name, layer in layers.items()}


@pytest.mark.parametrize("kind", RANKS)
def test_peft_has_the_same_ranks(kind: str, subject_of: Callable[..., Subject]) -> None:
    subject = subject_of(kind)
    config = ready.peft(subject, RANKS[kind])
    found = theirs(kind, peft.LoraConfig(**{key: value for key, value in config.items() if key != "peft_type"}))
    assert found == ours(kind, subject, RANKS[kind])


def test_layers_that_were_chosen_are_spelt_out(subject_of: Callable[..., Subject]) -> None:
    subject = subject_of("bert", "method.layers=[1]")
    config = ready.peft(subject, {"q": 2, "down": 3})
    found = theirs("bert", peft.LoraConfig(**{key: value for key, value in config.items() if key != "peft_type"}))
    assert found == ours("bert", subject, {"q": 2, "down": 3}) and all(".1." in name for name in found)


def test_a_fused_projection_has_the_largest_rank(subject_of: Callable[..., Subject]) -> None:
    found = ready.modules(subject_of("gpt2"), {"q": 2, "v": 6})
    assert found.shared and set(found.ranks.values()) == {6} and found.turned


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_other_tools_adapt_the_same_modules(kind: str, subject_of: Callable[..., Subject]) -> None:
    """Both hand target modules and one rank on to peft."""
    subject = subject_of(kind)
    ranks = dict.fromkeys(RANKS[kind], 4)
    factory = yaml.safe_load(ready.llama_factory(subject, ranks, 1e-3))
    axolotl = yaml.safe_load(ready.axolotl(subject, ranks, 1e-3))
    lists = peft.LoraConfig(r=factory["lora_rank"], target_modules=factory["lora_target"].split(","))
    expression = peft.LoraConfig(r=axolotl["lora_r"], target_modules=axolotl["lora_target_modules"])
    assert theirs(kind, lists) == theirs(kind, expression) == ours(kind, subject, ranks)
    assert factory["learning_rate"] == axolotl["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    ("model", "task", "hub"),
    [
        ("minilm", "rotten_tomatoes", "sentence-transformers/all-MiniLM-L6-v2"),
        ("smollm2", "text2sql", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_a_packaged_model_has_the_hub_id_of_its_weights(model: str, task: str, hub: str, tmp_path: Path) -> None:
    subject = Subject(Asked(model, task, "smoke", str(tmp_path / "results")))
    ready.write(subject, {"q": 2, "v": 4}, {"v": 4}, 1e-3, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == hub
    assert yaml.safe_load((tmp_path / "llama_factory.yaml").read_text())["model_name_or_path"] == hub
    assert yaml.safe_load((tmp_path / "axolotl.yaml").read_text())["base_model"] == hub


def test_other_models_are_named_as_they_were_typed(subject_of: Callable[..., Subject], tmp_path: Path) -> None:
    assert ready.model_path(subject_of("bert")) == str(tmp_path / "bert")
