"""Training steps of tiny models measured in processes of their own, beside their plans; and the commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers

from experiments.measure import machine
from experiments.measure.memory import grid, measured_step, option_steps, options, peaks, plans
from experiments.measure.memory.measured_step import in_children
from experiments.measure.memory.planner import plan
from experiments.measure.memory.schemas import MEASURED, OPTIONS
from experiments.measure.memory.setup import Setup
from experiments.models import Runtime
from lora.config import InputError

CPU = Runtime(torch.device("cpu"), torch.bfloat16)
LORA = {"name": "lora", "r": 4, "weight_types": "q+v"}
BADAM = {"name": "full", "optimizer": "badam", "switch": 5, "order": "random", "block": 1}
SIZES = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128,
    "max_position_embeddings": 128,
}  # fmt: skip
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("bert", {**LORA, "init": "pissa", "weight_types": "q+k+v+o+up+down"}, {"quantization": None}),
    ("bert", {"name": "adapter_h", "bottleneck": 4}, {"checkpointing": True}),
    ("llama", {"name": "full"}, {"checkpointing": True, "state_precision": "bf16"}),
    ("llama", LORA, {"quantization": "int8"}),
    ("llama", {"name": "full", "optimizer": "galore", "r": 4, "refresh": 1, "scale": 1.0}, {}),
    (
        "llama",
        {"name": "full", "optimizer": "badam", "switch": 5, "order": "random", "block": 1},
        {"batch": 1, "precision": "fp32"},
    ),
    ("mixtral", LORA, {"precision": "fp32"}),
]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, decoders: dict[str, Path]) -> dict[str, Path]:
    """Models with random weights and tokenizers."""
    configs = {
        "bert": transformers.BertConfig(vocab_size=512, **SIZES),
        "llama": transformers.LlamaConfig(vocab_size=512, num_key_value_heads=2, **SIZES),
        "mixtral": transformers.MixtralConfig(vocab_size=512, num_key_value_heads=2, num_local_experts=4, **SIZES),
    }
    root = tmp_path_factory.mktemp("measured")
    for kind, config in configs.items():
        family = (
            transformers.AutoModelForCausalLM if kind != "bert" else transformers.AutoModelForSequenceClassification
        )
        torch.manual_seed(0)
        family.from_config(config).save_pretrained(root / kind)
        source = tiny_model if kind == "bert" else decoders["llama"]
        transformers.AutoTokenizer.from_pretrained(source).save_pretrained(root / kind)
    return {kind: root / kind for kind in configs}


def test_plans_are_right_within_15_percent(folders: dict[str, Path]) -> None:
    setups = []
    for kind, method, fields in CASES:
        own = {"batch": 4, "length": 48, "targets": None if kind == "bert" else 24, **fields}
        model = {
            "name": kind,
            "path": str(folders[kind]),
            "dropout": 0.0,
            "quantization": own.pop("quantization", None),
        }
        setups.append(Setup(model, method, **own))
    for (kind, method, fields), setup, found in zip(
        CASES, setups, in_children(measured_step.measure, setups), strict=True
    ):
        ratio = plan(setup).peak / found.allocated
        assert ratio == pytest.approx(1, abs=0.15), (kind, method, fields)
        assert found.resident > found.before > 0


def test_what_cannot_be_measured_is_said(folders: dict[str, Path]) -> None:
    model = {"name": "bert", "path": str(folders["bert"]), "dropout": 0.0}
    with pytest.raises(InputError, match="precision = amp is planned, but not trained with here"):
        list(in_children(measured_step.measure, [Setup(model, LORA, 2, 8, precision="amp")]))


@pytest.fixture
def command(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A command with the smallest preset and a tiny model: exit code, output, errors."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")

    def call(main: Callable[[list[str]], int], *arguments: str) -> tuple[int, str, str]:
        given = ["--preset", "smoke", "--model", str(folders["bert"]), "--out", str(tmp_path / "memory"), *arguments]
        code = main(given)
        return code, *capsys.readouterr()

    return call


def refuse(*_: Any) -> Any:
    raise AssertionError("nothing is to be measured")


def test_steps_are_measured_once(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "memory"
    assert command(peaks.main)[0] == 0
    rows = pd.read_csv(folder / "measured.csv", keep_default_na=False)
    assert list(rows["method"]) == ["full", "lora"]
    assert list(rows.columns) == MEASURED.names
    assert (rows["ratio"] - 1).abs().max() < 0.15
    pd.testing.assert_series_equal(rows["ratio"], rows["predicted_peak"] / rows["measured_peak"], check_names=False)
    parts = rows[[name for name in peaks.PREDICTED if name != "predicted_peak"]].sum(axis=1)
    assert (rows["predicted_peak"] <= parts).all()
    recorded = json.loads((folder / "machine.json").read_text())
    assert recorded["precision"] in ("bf16", "fp32") and recorded["torch"] and recorded["started"]

    monkeypatch.setattr(measured_step, "measure", refuse)
    code, out, _ = command(peaks.main)
    assert code == 0 and "2 setups, 2 of them stored" in out
    (folder / "machine.json").write_text(json.dumps(recorded | {"processor": "another"}))
    code, _, err = command(peaks.main)
    assert (
        code == 2 and err.startswith("error:") and "was measured with processor another" in err and err.count("\n") == 1
    )
    (folder / "machine.json").write_text("{")
    assert command(peaks.main)[2].endswith("the same command measures anew\n")


def test_options_are_measured_side_by_side(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(options.main)[0] == 0
    rows = pd.read_csv(tmp_path / "memory" / "options.csv")
    assert list(rows.columns) == OPTIONS.names
    assert rows.groupby("round")["option"].apply(set).tolist() == [set(option_steps.VARIANTS)] * options.ROUNDS["smoke"]
    assert (rows["seconds"] > 0).all()
    peaks = rows.groupby("option")["peak"].agg(["min", "max"])
    assert (peaks["min"] == peaks["max"]).all()
    peak = peaks["max"]
    assert peak["bf16 moments"] < peak["none"]
    assert peak["checkpointing"] <= peak["none"] <= peak["AdamW foreach"]

    monkeypatch.setattr(option_steps, "peak", refuse)
    code, out, _ = command(options.main)
    assert code == 0 and "1 models, 1 of them stored" in out


def test_commands_say_what_is_wrong(command: Callable[..., tuple[int, str, str]]) -> None:
    for arguments, message in (
        (("--model", "no_such_model"), "unknown model 'no_such_model'"),
        (("--preset", "huge"), "--preset = huge; there are: smoke, quick"),
        (("--device", "tpu"), "runtime.device = tpu is not available here"),
    ):
        code, _, err = command(peaks.main, *arguments)
        assert code == 2 and message in err and err.count("\n") == 1


def test_the_desk_grid_has_every_kind_of_method_once() -> None:
    found = grid.setups("desk", grid.MODELS["desk"], CPU)
    names = {(setup.model["name"], setup.method["name"], setup.method.get("optimizer")) for setup in found}
    for method in ("full", "lora", "adapter_h", "prefix_layer", "ft_top2"):
        assert {("minilm", method, None), ("smollm2", method, None)} <= names
    assert len({plans.identity(setup) for setup in found}) == len(found) >= 50
    assert {setup.model["quantization"] for setup in found} == {None, "nf4", "int8", "int2"}
    assert all((setup.targets is None) == (setup.model["name"] == "minilm") for setup in found)
    assert {setup.method["r"] for setup in found if setup.method["name"] == "lora"} == {1, 8, 64}


def test_one_folder_is_of_one_machine(tmp_path: Path) -> None:
    machine.claim(tmp_path, CPU)
    machine.claim(tmp_path, CPU)
    with pytest.raises(InputError, match="was measured with precision bf16, this is fp32"):
        machine.claim(tmp_path, CPU._replace(dtype=torch.float32))
