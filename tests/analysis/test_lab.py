"""A study in one command, with a made-up runner: when tables are made, and what measurements and analyses are told."""

from pathlib import Path
from typing import Any

import pytest

from analysis import lab, study
from experiments import run
from experiments.commands import Done
from experiments.measure import forgetting, latency


@pytest.mark.parametrize(
    ("code", "listed", "derived"), [(0, True, True), (2, True, True), (2, False, False), (130, False, False)]
)
def test_tables_are_made_of_a_list_that_this_command_has_written(
    code: int, listed: bool, derived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []

    def show(folder: Path, base: str | None = None) -> int:
        shown.append(folder)
        return 0

    monkeypatch.setattr(run, "command", lambda: Done(code, tmp_path if listed else None))
    monkeypatch.setattr(study, "show", show)
    assert lab.main(["rank_ablation", "preset=quick"]) == code
    assert shown == [tmp_path] * derived


def test_measurements_and_analyses_are_told_where_the_users_model_and_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(run, "command", lambda: Done(0, tmp_path))
    monkeypatch.setattr(study, "show", lambda folder, base=None: told.update(base=base) or 0)
    monkeypatch.setattr(forgetting, "main", lambda arguments: told.update(measured=arguments) or 0)
    command = ["forgetting", "--windows", "4", "--"]
    assert lab.main([*command, "--model", "./my model", "--task=a b.csv", "preset=smoke"]) == 0
    assert told["base"] == "./my model"
    given = ["--model=./my model", "--task=a b.csv", "--among", "preset=smoke"]
    asked = ["--windows", "4"]  # of the preset, then what was typed
    assert told["measured"] == [str(tmp_path), *asked, *asked, *given]
    monkeypatch.setattr(forgetting, "main", lambda arguments: 2)
    told.clear()
    assert lab.main([*command, "preset=smoke"]) == 2
    assert told == {}, "nothing is derived of what is not measured"


def test_a_study_of_measurements_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(latency, "main", lambda arguments: told.update(measured=arguments) or 0)
    monkeypatch.setattr(study, "show", lambda folder, base=None: told.update(folder=folder) or 0)
    settings = ["preset=smoke", f"results_dir={tmp_path}", "engine.jobs=2", "--threads", "1"]
    assert lab.main(["latency", "--model", "minilm", *settings]) == 0
    out = ["--preset", "smoke", "--out", str(tmp_path / "smoke" / "latency")]
    assert told["measured"] == [*out, "--model=asset:minilm", "--threads", "1"]
    assert told["folder"] == tmp_path / "smoke" / "latency"


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["rank_ablatoin"], "unknown study 'rank_ablatoin'; did you mean rank_ablation?"),
        (["ablate-rank"], "unknown study 'ablate-rank'; did you mean rank_ablation?"),
        (["latency", "--task", "glue/sst2"], "latency measures a model, not a task: leave the task out"),
        (["subspace", "--windows", "4", "--"], "--windows 4: subspace measures nothing after its runs"),
    ],
)
def test_what_cannot_be_is_one_line(typed: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.main(typed) == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")
