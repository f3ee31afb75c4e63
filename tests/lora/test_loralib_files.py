"""Pickled checkpoints of loralib's names, as they should and should not be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import loralib
import pytest
import torch
from tiny_models import assert_equal, assert_identical, logits, randomise, state, tiny_model
from torch import nn

from analysis.weights import updates
from lora.config import InputError, LoRAConfig
from lora.interop import load_loralib


def test_a_convolution_of_loralib_is_refused(tmp_path: Path) -> None:
    """r = 4 of a kernel of 3 is stored in matrices of 12 rows: as a linear layer's it would have r = 12."""
    for name in ("conv", "0", "features.1"):
        layer = loralib.Conv2d(8, 16, 3, r=4, lora_alpha=12)
        assert layer.lora_A.shape == (12, 24) and layer.scaling == 3
        torch.save({f"{name}.lora_A": layer.lora_A, f"{name}.lora_B": layer.lora_B}, tmp_path / "lora.pt")
        with pytest.raises(InputError, match=f"{name} may be a Conv2d of loralib"):
            updates.read(tmp_path / "lora.pt", alpha=12)


def test_a_merged_checkpoint_of_loralib_is_refused(tmp_path: Path) -> None:
    def make() -> nn.Module:
        model = tiny_model("bert")
        for name, module in list(model.named_modules()):
            if name.endswith("self.query"):
                new = loralib.Linear(32, 32, r=3, lora_alpha=6)
                new.load_state_dict(module.state_dict(), strict=False)
                model.set_submodule(name, new)
        randomise(model)
        return model

    config = LoRAConfig(r=3, alpha=6, weight_types=("q",))
    apart, merged = make().train(), make().train().eval()
    torch.save(apart.state_dict(), tmp_path / "apart.pt")  # everything, W0 too
    ours = tiny_model("bert")
    load_loralib(ours, tmp_path / "apart.pt", config)
    assert_equal(logits(ours), logits(merged))
    torch.save(merged.state_dict(), tmp_path / "merged.pt")
    with pytest.raises(InputError, match="query.weight is not the pretrained one: its adapter may be merged"):
        load_loralib(tiny_model("bert"), tmp_path / "merged.pt", config)


def loralib_state(change: Callable[[dict[Any, Any]], Any], path: Path) -> Path:
    A, B = torch.ones(3, 32), torch.ones(32, 3)
    torch.save(change({"bert.encoder.layer.0.attention.self.query.lora_A": A,
                       "bert.encoder.layer.0.attention.self.query.lora_B": B}), path)  # fmt: skip
    return path


A_NAME = "bert.encoder.layer.0.attention.self.query.lora_A"
ONE = LoRAConfig(r=3, alpha=6, weight_types=("q",), layers=(0,))
PICKLES: dict[str, tuple[Callable[[dict[Any, Any]], Any], str]] = {
    "integer keys": (lambda state: state | {7: torch.ones(2)}, "holds other things than names and tensors"),
    "meta": (lambda state: state | {A_NAME: torch.ones(3, 32, device="meta")}, "lora_A has no data"),
    "sparse": (lambda state: state | {A_NAME: torch.ones(3, 32).to_sparse()}, "lora_A is sparse, nested or quantised"),
    "nested": (
        lambda state: state | {A_NAME: torch.nested.nested_tensor([torch.ones(2)])},
        "is sparse, nested|cannot be read",
    ),
    "complex": (lambda state: state | {A_NAME: torch.ones(3, 32, dtype=torch.complex64)}, "stored as complex64"),
    "64 GB": (lambda state: state | {A_NAME: torch.ones(1).expand(4, 1 << 32)}, "asks for 68,719,476,736 bytes"),
    "two sets": (lambda state: {"model": state, "ema": state}, r"several sets of weights \(model, ema\)"),
    "numbers": (lambda state: state | {"step": 3}, "holds other things than names and tensors"),
    "a list": (lambda state: [state], "holds other things than names and tensors"),
    "NaN": (lambda state: state | {A_NAME: torch.full((3, 32), torch.nan)}, "lora_A holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_pickled_files_that_are_no_adapters(case: str, tmp_path: Path) -> None:
    change, match = PICKLES[case]
    path = loralib_state(change, tmp_path / "lora.pt")
    model = tiny_model("bert")
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        load_loralib(model, path, ONE)
    assert "\n" not in str(raised.value)
    assert_identical(model, before)


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("module",), ("model", "state_dict")])
def test_parameters_and_state_dicts_under_a_key(keys: tuple[str, ...], tmp_path: Path) -> None:
    def change(own: dict[Any, Any]) -> Any:
        found: Any = {name: nn.Parameter(value) for name, value in own.items()}
        for key in keys:
            found = {key: found, "epoch": 3}
        return found

    path = loralib_state(change, tmp_path / "lora.pt")
    model = tiny_model("bert")
    load_loralib(model, path, ONE)
    assert (logits(model) - logits(tiny_model("bert"))).abs().max() > 1e-3
    found = updates.read(path, alpha=6)
    assert [update.norm() for update in found.values()] == [pytest.approx(6 / 3 * 3 * 32)]
    assert "epoch too, which is not read" in found.account().notes[-1]
