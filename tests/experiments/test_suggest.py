"""What is said of settings that there are not: one line, with the nearest that there is."""

import pytest

from experiments import names, run, suggest


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("method=lroa", "unknown method lroa; did you mean lora?"),
        ("study=rank_ablatoin", "unknown study rank_ablatoin; did you mean rank_ablation?"),
        ("task=glue/sst", "unknown task glue/sst; did you mean glue/sst2 or glue/stsb?"),
        ("preset=qick", "unknown preset qick; did you mean quick?"),
        ("preset=large", "unknown preset large; there are: desk, desk1, paper, quick, smoke"),
        ("model=minlm", "unknown model minlm; did you mean minilm?"),
        ("method.rr=3", "unknown setting method.rr; did you mean method.r?"),
        ("study=rank_ablation method.rr=3,4", "unknown setting method.rr; did you mean method.r?"),
        ("study=scaling method.rr=3", "unknown setting method.rr; did you mean method.r?"),
        ("traning.lr=3", "unknown setting traning.lr; did you mean training.lr?"),
        ("rr=3", "unknown setting rr; did you mean method.r?"),
        ("methd.r=4", "unknown setting methd.r; did you mean method.r?"),
        ("tsk=rotten_tomatoes", "unknown setting tsk; did you mean task?"),
        ("hydra.sweper.params=1", "unknown setting hydra.sweper.params; did you mean hydra.sweeper.params?"),
    ],
)
def test_the_whole_line(
    command: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["experiments.run", *command.split()])
    assert run.command().code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("training.quuux=1", ["unknown setting training.quuux; training has lr, head_lr, epochs"]),
        ("zzzz=1", ["unknown setting zzzz; there are model, training"]),
        ("method=full method.r=3", ["method.r is a setting of dora, ", ", lora, ", ", not of every method here"]),
        ("study=scaling method.r=3", ["not of every method here; choose the study's points instead: 'hydra.sweeper"]),
        ("study=rank_ablation hydra.sweeper.places=[a] seed=0,1", ["it has no such list; a part of a study is only."]),
        ("only=minilm", ["only=…: say of which setting, as in only.model=minilm"]),
        ("seed=0,1]", ["Error parsing override 'seed=0,1]'"]),
    ],
)
def test_parts_of_the_line(
    command: str, parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["experiments.run", *command.split()])
    assert run.command().code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert all(part in lines[0] for part in parts)


def test_settings_of_a_method_are_those_it_builds_on() -> None:
    assert {"r", "alpha", "init", "name"} <= suggest.fields("pissa")
    assert "r" not in suggest.fields("full")


def test_parts_of_configs_are_no_options() -> None:
    assert not [name for name in names.options("study") if name.startswith("_")]
    assert {"glue/sst2", "text/sst2", "e2e"} <= set(names.options("task"))
    assert "_text_glue" not in names.options("task")
