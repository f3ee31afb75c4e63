import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from transformers import GPT2Config

from experiments.measure import forward_pass, latency
from experiments.measure.forward_pass import Contender, Rounds
from experiments.measure.schemas import TRIALS
from experiments.models import Runtime
from lora.config import InputError
from lora.model import lora_layers

CONTENDERS = 4 + 2 * 2  # base, control, LoRA merged and not; two adapters of two bottlenecks
FP32 = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", os.environ.get("OMP_WAIT_POLICY", "PASSIVE"))


@pytest.fixture
def measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command with the smallest preset; returns its exit code and standard error."""

    def call(*arguments: str) -> tuple[int, str]:
        code = latency.main(["--preset", "smoke", "--out", str(tmp_path / "latency"), *arguments])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def trials(tmp_path: Path) -> Callable[[], pd.DataFrame]:
    return lambda: pd.read_csv(tmp_path / "latency" / "trials.csv")


def test_contenders_share_weights_and_compute_what_the_base_model_does() -> None:
    torch.manual_seed(0)
    base = forward_pass.build("tiny", FP32)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    found = forward_pass.contenders(base, [2, 4])
    tokens = forward_pass.inputs(base, 2, 16, seed=0)
    with torch.inference_mode():
        expected = base(tokens).logits
        for contender in found:  # adapters and LoRA start at zero
            torch.testing.assert_close(contender.model(tokens).logits, expected)
    assert base.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    embedding = base.get_input_embeddings().weight
    assert all(contender.model.get_input_embeddings().weight is embedding for contender in found)
    merged = {contender.name: [layer.merged for _, layer in lora_layers(contender.model)] for contender in found}
    assert merged["lora_merged"] == [True, True] and merged["lora_unmerged"] == [False, False]
    assert merged["base"] == merged["control"] == merged["adapter_h"] == []


def test_added_parameters_follow_the_formulas() -> None:
    d, layers = 32, 2
    found = forward_pass.contenders(forward_pass.build("tiny", FP32), [4])
    added = {contender.name: contender.added for contender in found}
    bottleneck = 2 * d * 4 + 4 + d
    assert added == {
        "base": 0, "control": 0, "lora_merged": 0, "lora_unmerged": 2 * layers * 4 * (d + d),
        "adapter_h": 2 * layers * bottleneck, "adapter_l": layers * (bottleneck + 2 * d),
    }  # fmt: skip


def test_real_shapes_have_their_published_sizes() -> None:
    for name, parameters in (("gpt2-medium", 354_823_168), ("smollm2-135m", 134_515_008)):
        model = forward_pass.build(name, Runtime(torch.device("meta"), torch.float32))
        assert model.num_parameters() == parameters


def test_every_round_has_all_in_a_new_order_and_warm_up_is_not_counted() -> None:
    calls: list[tuple[str, tuple[int, ...]]] = []

    class Fake(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, input_ids: torch.Tensor, **_: Any) -> None:
            calls.append((self.name, tuple(input_ids.shape)))

    competing = [Contender(name, 0, Fake(name), 0) for name in "abcde"]
    tokens = torch.zeros(3, 40, dtype=torch.long)
    done = list(forward_pass.trials(competing, tokens, Rounds(4, 4, 0.0, 2), seed=0))
    assert [trial.round for trial in done] == [index for index in range(4) for _ in "abcde"]
    orders = ["".join(trial.contender.name for trial in done[start : start + 5]) for start in range(0, 20, 5)]
    assert all(sorted(order) == list("abcde") for order in orders)
    assert len(set(orders)) > 1
    assert len(calls) == 2 * 5 * (2 + 4)  # an untimed short pass before each, two warm-up rounds
    assert [shape for _, shape in calls[:2]] == [(1, 16), (3, 40)]
    assert [name for name, shape in calls if shape == (3, 40)][10:] == list("".join(orders))
    again = forward_pass.trials(competing, tokens, Rounds(4, 4, 0.0, 2), seed=0)
    assert [trial.contender.name for trial in again] == list("".join(orders))
    other = forward_pass.trials(competing, tokens[:2], Rounds(4, 4, 0.0, 2), seed=0)
    assert [trial.contender.name for trial in other] != list("".join(orders))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 10), (2.0, 10), (4.0, 5), (100.0, 5)])
def test_rounds_fill_the_time_within_their_limits(seconds: float, rounds: int) -> None:
    assert Rounds(5, 10, 20.0, 1).number(seconds) == rounds


def test_measurement_is_complete_says_its_machine_and_is_not_repeated(
    measure: Callable[..., tuple[int, str]], trials: Callable[[], pd.DataFrame], tmp_path: Path
) -> None:
    assert measure()[0] == 0
    first = trials()
    assert list(first.columns) == TRIALS.names
    counts = first.groupby([*latency.CELL, "contender", "bottleneck"]).size()
    assert len(counts) == 4 * CONTENDERS and set(counts) == {3}
    assert (first["seconds"] > 0).all()
    machine = json.loads((tmp_path / "latency" / "machine.json").read_text())
    assert machine["torch"] == torch.__version__ and machine["threads"] == torch.get_num_threads()
    assert machine["precision"] in ("bf16", "fp32") and machine["left_out"] == []
    stamp = (tmp_path / "latency" / "trials.csv").stat().st_mtime_ns
    assert measure()[0] == 0
    assert (tmp_path / "latency" / "trials.csv").stat().st_mtime_ns == stamp


def test_killed_measurement_continues_with_the_next_cell(
    measure: Callable[..., tuple[int, str]], trials: Callable[[], pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = forward_pass.trials, []

    def killed(*arguments: Any) -> Any:
        started.append(arguments)
        if len(started) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(forward_pass, "trials", killed)
    code, error = measure()
    assert code == 130 and "continues" in error
    first = trials()
    assert len(first.groupby(latency.CELL)) == 2
    assert measure()[0] == 0
    assert len(started) == 3 + 2
    pd.testing.assert_frame_equal(trials()[: len(first)], first)
    assert len(trials().groupby(latency.CELL)) == 4


def test_more_rounds_or_bottlenecks_measure_a_cell_anew(
    measure: Callable[..., tuple[int, str]], trials: Callable[[], pd.DataFrame]
) -> None:
    cell = ["--batches", "1", "--lengths", "16"]
    measure(*cell)
    measure(*cell, "--rounds", "4")
    assert trials()["round"].max() == 3 and len(trials()) == 4 * CONTENDERS
    measure(*cell, "--rounds", "4", "--bottlenecks", "3")
    assert set(trials()["bottleneck"]) == {0, 3}


def test_other_settings_do_not_mix_with_stored_ones(
    measure: Callable[..., tuple[int, str]], trials: Callable[[], pd.DataFrame]
) -> None:
    assert measure("--precision", "fp32", "--batches", "1", "--lengths", "16")[0] == 0
    stored = trials()
    code, error = measure("--precision", "bf16", "--batches", "1", "--lengths", "16")
    assert code == 2 and "was measured with precision fp32, this is bf16" in error
    pd.testing.assert_frame_equal(trials(), stored)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batches", "0"], "'0' is no whole number"),
        (["--lengths", "16,x"], "'x' is no whole number"),
        (["--lengths", "16,65"], "length 65 is too long"),
        (["--bottlenecks", "33"], "33 is no bottleneck"),
        (["--device", "tpu"], "tpu is not available"),
        (["--model", "./missing"], "does not exist"),
        (["--precision", "fp8"], "--precision = fp8; there are: auto, bf16, fp32"),
        (["--nothing"], "unknown option --nothing"),
    ],
)
def test_bad_input_is_one_line(measure: Callable[..., tuple[int, str]], arguments: list[str], message: str) -> None:
    code, error = measure(*arguments)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0]
    assert "Traceback" not in error


@pytest.mark.parametrize(("name", "content"), [("trials.csv", "model,batch\n1,"), ("machine.json", "{")])
def test_damaged_files_are_one_line(
    measure: Callable[..., tuple[int, str]], tmp_path: Path, name: str, content: str
) -> None:
    measure("--batches", "1", "--lengths", "16")
    (tmp_path / "latency" / name).write_text(content)
    code, error = measure()
    assert code == 2 and error.startswith("error: ") and name in error and error.count("\n") == 1


def test_a_models_own_config_gives_its_shape(
    measure: Callable[..., tuple[int, str]], trials: Callable[[], pd.DataFrame], tmp_path: Path
) -> None:
    GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=32).save_pretrained(tmp_path / "own")
    assert measure("--model", str(tmp_path / "own"), "--batches", "1", "--lengths", "8")[0] == 0
    added = trials().groupby(["contender", "bottleneck"])["added_parameters"].first()
    assert added["adapter_l", 2] == 2 * 16 * 2 + 2 + 16 + 2 * 16


def test_a_model_that_is_none_of_language_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no model can be made of"):
        forward_pass.build("./", FP32)


def plan(*arguments: str) -> tuple[set[latency.Cell], set[latency.Cell]]:
    cells, left_out = latency.plan(latency._options(arguments))
    assert len(set(cells)) == len(cells)
    return set(cells), set(left_out)


def test_paper_preset_is_the_whole_grid_and_desk_leaves_out_large_passes() -> None:
    whole, nothing = plan("--preset", "paper")
    assert len(whole) == 2 * 6 * 3 and not nothing
    assert latency.PRESETS["paper"].rounds[:2] == (100, 100)
    cells, left_out = plan("--preset", "desk")
    assert cells | left_out == whole and not cells & left_out
    assert {("gpt2-medium", 1, 128), ("smollm2-135m", 1, 128)} <= cells
    assert all(batch * length > latency.PRESETS["desk"].largest[model] for model, batch, length in left_out)
    named, nothing = plan("--preset", "desk", "--batches", "32", "--lengths", "512", "--model", "gpt2-medium")
    assert named == {("gpt2-medium", 32, 512)} and not nothing
