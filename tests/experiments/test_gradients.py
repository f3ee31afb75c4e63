"""LoRA's formulas against autograd on several architectures, the first steps, FLOPs, and the command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from experiments.measure.gradients import cost, formulas
from experiments.measure.gradients import measure as command
from experiments.models import head_modules
from lora.config import LoRAConfig
from lora.model import freeze, inject, lora_layers
from lora.targets import weight_types as types_of

WIDE, INNER, LAYERS, TEXTS, TOKENS = 32, 48, 2, 3, 7
SIZES = {
    "vocab_size": 64, "hidden_size": WIDE, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "max_position_embeddings": 16, "pad_token_id": 0, "num_labels": 3,
    "attn_implementation": "eager",
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    "gpt2": ("GPT2", SIZES | {"n_embd": WIDE, "n_layer": LAYERS, "n_head": 4}),  # Conv1D, fused q, k, v
    "gpt_neox": ("GPTNeoX", SIZES),  # fused within each head: rows are an index
    "llama": ("Llama", SIZES | {"num_key_value_heads": 2}),  # no biases; k and v are smaller
    "opt": ("OPT", SIZES | {"ffn_dim": INNER, "word_embed_proj_dim": WIDE}),
}


def tiny(kind: str) -> Any:
    name, sizes = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 64, (TEXTS, TOKENS), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(TEXTS)}


def adapted(kind: str, r: int, alpha: float, weight_types: tuple[str, ...] | None = None) -> Any:
    model = tiny(kind)
    inject(model, LoRAConfig(r=r, alpha=alpha, weight_types=weight_types or types_of(model)))
    for _, layer in lora_layers(model):
        for B in layer.lora_B.values():
            nn.init.normal_(B, std=0.3)
    freeze(model, head_modules(model))
    return model


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(r=st.integers(1, 16), alpha=st.floats(0.25, 64))
def test_formulas_are_autograds(kind: str, r: int, alpha: float) -> None:
    result = formulas.check(adapted(kind, r, alpha).double(), batch())
    assert result["error"].max() < 1e-12
    assert set(result["gradient"]) == {"dL/dA", "dL/dB", "dL/dx"}
    of_a = result[result["gradient"] == "dL/dA"]
    assert set(of_a["weight_type"]) == set(types_of(tiny(kind)))
    assert (of_a["modules"] == LAYERS).all()
    assert set(result["module"]) == ({"Conv1D"} if kind == "gpt2" else {"Linear"})


def test_a_fused_projection_has_one_gradient_of_x() -> None:
    result = formulas.check(adapted("gpt2", 2, 4).double(), batch())
    assert set(result["weight_type"][result["gradient"] == "dL/dx"]) == {"q+k+v", "o", "up", "down"}


@pytest.mark.parametrize("wrong", ["dL/dA", "dL/dB", "dL/dx"])
def test_a_wrong_formula_is_seen(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = formulas.by_hand

    def by_hand(*arguments: Any) -> dict[tuple[str, str], Tensor]:
        return {key: (1.001 if key[0] == wrong else 1) * value for key, value in right(*arguments).items()}

    monkeypatch.setattr(formulas, "by_hand", by_hand)
    errors = formulas.check(adapted("bert", 4, 8).double(), batch()).groupby("gradient")["error"].max()
    assert errors[wrong] == pytest.approx(0.001)
    assert errors.drop(wrong).max() < 1e-12


def test_checks_leave_the_model_alone_and_cover_ranks_and_precisions() -> None:
    model = tiny("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = formulas.checks(model, "tiny", batch(), (1, 4))
    assert set(zip(result["r"], result["precision"], strict=True)) == {(r, p) for r in (1, 4) for p in ("fp32", "fp64")}
    assert result["error"][result["precision"] == "fp32"].between(1e-9, 1e-4).mean() > 0.5
    assert result["error"].max() < 1e-4
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_first_steps_from_every_start() -> None:
    rows = {
        (row["start"], row["step"]): row
        for start in formulas.STARTS
        for row in formulas.first_steps(tiny("bert"), batch(), start, (0, 1, 3), lr=1e-2)
    }
    for start, zero, other in (("gaussian", "B", "A"), ("gaussian_b", "A", "B")):
        first, second, third = (rows[start, step] for step in (0, 1, 3))
        assert first[f"norm_{zero}"] == first[f"gradient_{other}"] == 0
        assert first[f"norm_{other}"] > 0 and first[f"gradient_{zero}"] > 0
        # Only the matrix that was zero moves in the first step; from then on both have gradients.
        assert second[f"moved_{other}"] == 0 and second[f"moved_{zero}"] == second[f"norm_{zero}"] > 0
        assert second[f"gradient_{other}"] > 0 and third[f"moved_{other}"] > 0
    both = rows["both_gaussian", 0]
    assert min(both[f"{what}_{side}"] for what in ("norm", "gradient") for side in "AB") > 0
    for step in (0, 1, 3):
        saddle = rows["both_zero", step]
        assert all(saddle[f"{what}_{side}"] == 0 for what in ("norm", "gradient", "moved") for side in "AB")
    assert rows["both_zero", 3]["loss"] < rows["both_zero", 0]["loss"]  # the head is trained


def test_flops_of_full_fine_tuning_by_hand() -> None:
    counts = cost.flops(tiny("bert"), batch())
    t, n = TEXTS * TOKENS, LAYERS * (4 * WIDE**2 + 2 * WIDE * INNER)
    head = TEXTS * (WIDE**2 + 3 * WIDE)  # pooler and classifier see one token a text
    assert counts.rule == (2 * n * t, 4 * n * t)
    assert counts.counted == counts.exact == (2 * (n * t + head), 4 * (n * t + head))
    attention = LAYERS * 2 * 2 * TEXTS * TOKENS**2 * WIDE  # q k^T and the weighted sum of v
    assert counts.attention == (attention, 2 * attention)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("r", [1, 5, 16])
@pytest.mark.parametrize("types", [("q", "v"), None])
def test_flops_of_lora_are_the_formulas(kind: str, r: int, types: tuple[str, ...] | None) -> None:
    counts, full = cost.flops(adapted(kind, r, 8, types), batch()), cost.flops(tiny(kind), batch())
    assert counts.counted == counts.exact
    assert counts.counted[0] > full.counted[0]
    # 2 N T + low-rank terms at most: dL/dW0 is never formed.
    assert counts.counted[1] < counts.rule[1]
    low_rank = counts.rule[0] - full.rule[0]
    head = 0 if kind == "bert" else 2 * TEXTS * TOKENS * 3 * WIDE  # decoders apply it, trained, to every token
    assert counts.rule[1] == full.rule[1] // 2 + 2 * low_rank + head


def test_seconds_are_measured_in_turns_without_the_first_round() -> None:
    order: list[str] = []

    class Recorder(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name, self.weight = name, nn.Parameter(torch.ones(()))

        def forward(self, **_: Tensor) -> Any:
            order.append(self.name)
            return transformers.modeling_outputs.SequenceClassifierOutput(loss=self.weight * 2)

    found = cost.seconds({name: Recorder(name) for name in "ab"}, batch(), trials=2)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in found.items()} == {"a": 2, "b": 2}
    assert all(min(pair) > 0 for times in found.values() for pair in times)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    def run(*args: str) -> int:
        out = ["--preset", "smoke", "--out", str(tmp_path / "gradients")]
        monkeypatch.setattr(sys, "argv", ["experiments.measure.gradients", *out, *args])
        return command.main()

    return run


def test_command_writes_the_files_once(
    call: Callable[..., int], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--model", str(tiny_model), "--device", "cpu") == 0
    frames = {
        schema.file.removesuffix(".csv"): pd.read_csv(tmp_path / "gradients" / schema.file) for schema in command.FILES
    }
    assert set(frames["checks"]["module"]) == {"Linear", "Conv1D"}
    assert frames["checks"]["error"].max() < 1e-4
    assert set(frames["steps"]["start"]) == set(formulas.STARTS)
    assert (frames["flops"]["counted"] == frames["flops"]["exact"]).all()
    assert (frames["flops"][["seconds", "ratio_low", "ratio_high"]] > 0).all(axis=None)
    assert json.loads((tmp_path / "gradients" / "settings.json").read_text())["model"] == str(tiny_model)

    def fail(*_: Any) -> None:
        raise AssertionError("measured again")

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "measure", fail)
        assert call("--model", str(tiny_model), "--device", "cpu") == 0
        assert "(stored)" in capsys.readouterr().out
        (tmp_path / "gradients" / "steps.csv").unlink()
        with pytest.raises(AssertionError, match="measured again"):
            call("--model", str(tiny_model), "--device", "cpu")


def test_bad_input_is_one_line(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--model", "./nowhere", "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model folder ./nowhere does not exist") and error.count("\n") == 1
