"""A file in `lora.variants` is all that a new start or a new update takes: the examples of CONTRIBUTING.md."""

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_models import assert_equal, assert_identical, logits, randomise, state, tiny_model

import lora
from lora import budget, variants
from lora.config import InputError
from lora.io import read
from lora.model import lora_layers, trainable_parameters

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = GUIDE.read_text(encoding="utf-8").partition("\n## A LoRA variant\n")[2].partition("\n## ")[0]
FILES = dict(re.findall(r"`lora/variants/(\w+)\.py`[^`]*```python\n(.*?)```", SECTION, re.DOTALL))


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package with the two files of CONTRIBUTING.md in it."""
    assert list(FILES) == ["eye", "scaled"]
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(variants, "__path__", [*variants.__path__, str(tmp_path)])
    yield
    for name in FILES:
        sys.modules.pop(f"lora.variants.{name}", None)
        vars(variants).pop(name, None)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt_neox"])
@pytest.mark.usefixtures("added")
def test_a_new_update_is_trained_merged_counted_and_stored(kind: str, tmp_path: Path) -> None:
    config = lora.LoRAConfig(r=2, alpha=3, variant="scaled", init="eye")
    model = tiny_model(kind)
    before, out = state(model), logits(model)
    lora.inject(model, config)
    lora.freeze(model)
    assert torch.equal(logits(model), out)
    trained = trainable_parameters(model)
    assert budget.parameters(tiny_model(kind), config) == sum(parameter.numel() for parameter in trained.values())
    assert sum(name.endswith("lora_c.q") for name in trained) == 2
    randomise(model)
    twin = copy.deepcopy(model)
    logits(model).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained.values())
    adapted = logits(model)
    for _, layer in lora_layers(model):
        for part in layer.parts:
            A, B, c = (layer.trained(part.name)[side] for side in "ABc")
            torch.testing.assert_close(layer.delta_w(part.name), torch.diag(c) @ (1.5 * B @ A))
    lora.merge(model)
    assert_equal(logits(model), adapted)
    lora.save(model, tmp_path / "adapter")
    lora.eject(model)
    assert_identical(model, before)
    entries = json.loads((tmp_path / "adapter" / "lora_config.json").read_text())["targets"]
    assert all(entry["scaled"] is True for entry in entries)
    assert {target.variant for target in read(tmp_path / "adapter").targets} == {"scaled"}
    lora.load(model, tmp_path / "adapter")
    assert torch.equal(logits(model), logits(twin))
    with pytest.raises(InputError, match="peft has no scaled: save the adapters with lora.io.save, or merge them"):
        lora.save_peft(model, tmp_path / "peft")


@pytest.mark.usefixtures("added")
def test_a_new_start() -> None:
    model = tiny_model("llama")
    lora.inject(model, lora.LoRAConfig(r=3, init="eye"))
    for _, layer in lora_layers(model):
        for A, B in zip(layer.lora_A.values(), layer.lora_B.values(), strict=True):
            assert torch.equal(A, torch.eye(3, 32)) and not B.any()
    assert {"eye", "gaussian"} <= set(variants.known(variants.Start)) and "eye" not in variants.known(variants.Update)


def test_without_the_files_there_is_neither() -> None:
    for fields in ({"init": "eye"}, {"variant": "scaled"}):
        with pytest.raises(InputError, match="unknown (init 'eye'|variant 'scaled'): choose from"):
            lora.LoRAConfig(**fields)


@pytest.mark.parametrize(
    ("entry", "match"),
    [({"dora": "yes"}, "dora = 'yes'"), ({"dora": True, "lora": True}, "= True"), ({"variant": "dora"}, "variant")],
)
def test_a_damaged_variant_in_a_file(entry: dict[str, object], match: str, tmp_path: Path) -> None:
    model = tiny_model("bert")
    lora.inject(model, lora.LoRAConfig(r=2))
    lora.save(model, tmp_path)
    path = tmp_path / "lora_config.json"
    content = json.loads(path.read_text())
    content["targets"][0] |= entry
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=match):
        read(tmp_path)
