"""A long run that is killed goes on from its last epoch, with the result of one that was never killed."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from experiments import training

Cli = Callable[..., Any]  # conftest.cli
SETTINGS = {
    "LoRA with dropout": ["method.dropout=0.1"],
    "masks that are drawn fast": ["method.dropout=0.1", "training.dropout_masks=fast"],
    "full fine-tuning": ["method=full"],
    "GaLore, which draws directions anew": ["method=galore", "method.r=4", "method.refresh=3"],
    "moments that are rounded at random": ["training.state_precision=bf16"],
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_result_is_the_same_to_the_bit(
    settings: list[str], cli: Cli, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*tiny, *settings, "model.dropout=0.1", "preset.epochs=3", "runtime.keep_weights=all"]
    resumable = [*command, "runtime.checkpoint_every=1"]
    steps, whole = 0, training._backward

    def until_the_third_epoch(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 15:  # of 6 an epoch
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(training, "_backward", until_the_third_epoch)
    assert cli(*resumable).code == 130
    runs = tmp_path / "results" / "runs"
    assert not list(runs.glob("[0-9a-f]*")), "there is no half a run"
    assert len(list(runs.glob(".resume/*.pt"))) == 1
    monkeypatch.setattr(training, "_backward", whole)
    assert cli(*resumable).code == 0
    assert not list(runs.glob(".resume/*.pt"))
    assert cli(*command, f"results_dir={tmp_path}/never-killed").code == 0
    (run,) = runs.glob("[0-9a-f]*")
    other = tmp_path / "never-killed" / "runs" / run.name
    assert (run / "history.csv").read_text() == (other / "history.csv").read_text()
    weights = [(folder / "adapter" / "adapter.safetensors").read_bytes() for folder in (run, other)]
    assert weights[0] == weights[1]


def test_a_damaged_checkpoint_is_one_line(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    from experiments.jobs import resolve
    from experiments.store import Store, definition, run_id

    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        identifier = run_id(definition(resolve(compose("config", tiny)).given))
    place = Store(tmp_path / "results" / "runs").checkpoint(identifier)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"PK")
    result = cli(*tiny, "runtime.checkpoint_every=1")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert f"{place} is damaged" in result.err and "delete it" in result.err


def test_badam_cannot_go_on_and_says_so(cli: Cli, tiny: list[str]) -> None:
    result = cli(*tiny, "method=badam", "method.switch=2", "runtime.checkpoint_every=1")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "BAdam's turns cannot be taken up again" in result.err


def test_a_run_can_be_watched_row_by_row(
    cli: Cli, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole = training._backward

    def watched(*arguments: Any) -> Tensor:
        (history,) = (tmp_path / "results" / "runs").glob(".*/history.csv")
        with history.open() as file:
            seen.append(len(list(csv.DictReader(file))))
        return whole(*arguments)

    monkeypatch.setattr(training, "_backward", watched)
    assert cli(*tiny).code == 0
    assert seen == list(range(6))


@pytest.mark.parametrize(
    ("keep", "method", "kept"),
    [("auto", "lora", True), ("auto", "full", False), ("all", "full", True), ("none", "lora", False)],
)
def test_what_a_run_keeps(keep: str, method: str, kept: bool, cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, f"method={method}", f"runtime.keep_weights={keep}").code == 0
    (run,) = (tmp_path / "results" / "runs").glob("[0-9a-f]*")
    assert (run / "adapter").is_dir() == kept


def test_a_run_without_weights_is_computed_again_for_who_needs_them(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, "method=full").code == 0
    assert cli(*tiny, "method=full").out.endswith("(stored)\n")
    again = cli(*tiny, "method=full", "runtime.keep_weights=all")
    assert again.code == 0 and "(stored)" not in again.out
    assert len(list((tmp_path / "results" / "runs").glob("[0-9a-f]*/adapter"))) == 1
