"""`import lora` is all that is needed to adapt a model, and it loads nothing before it is asked."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import assert_equal, assert_identical, logits, randomise, state, tiny_model

import lora


def test_one_adapter_from_inject_to_load(tmp_path: Path) -> None:
    model = tiny_model("bert")
    before, out = state(model), logits(model)
    lora.inject(model, lora.LoRAConfig(r={"q": 2, "v": 4}, alpha=8))
    assert torch.equal(logits(model), out)
    lora.freeze(model, trained=["classifier"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[-2] for name in trained} == {"lora_A", "lora_B", "classifier"}
    randomise(model)
    adapted = logits(model)
    lora.save(model, tmp_path / "own")
    lora.save_peft(model, tmp_path / "peft")
    lora.merge(model)
    assert_equal(logits(model), adapted)
    lora.unmerge(model)
    assert torch.equal(logits(model), adapted)
    lora.eject(model)
    assert_identical(model, before)
    for load, folder in ((lora.load, "own"), (lora.load_peft, "peft")):
        again = tiny_model("bert")
        load(again, tmp_path / folder)
        assert_equal(logits(again), adapted)


def test_all_of_it_is_there() -> None:
    assert dir(lora) == sorted(lora.__all__)
    assert all(callable(getattr(lora, name)) for name in lora.__all__)
    with pytest.raises(AttributeError, match="module 'lora' has no attribute 'adapt'"):
        lora.adapt  # noqa: B018


def test_names_stay_functions_whatever_module_was_imported() -> None:
    """A module of a name of the face would take its place as soon as it is imported."""
    folder = Path(lora.__file__).parent
    assert not {path.stem for path in folder.iterdir()}.intersection(lora.__all__)


def test_settings_are_known_without_torch() -> None:
    code = "import sys, lora.variants; from lora.config import QUANTIZATIONS as Q; print(Q, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "('int2', 'int8', 'nf4') False\n", done.stderr
