"""The benchmark of whole sweeps; what it times is tried in test_make.py and tests/experiments/engines."""

import json
from pathlib import Path

import pytest

from bench import sweep
from bench.sweep import Trial


def test_ratios_are_to_the_sweep_with_workers() -> None:
    names = list(sweep.CONTENDERS)
    walls = dict(zip(names, (50.0, 100.0, 80.0, 90.0), strict=True))
    trials = {name: [Trial(walls[name] * scale, walls[name] * 1.5) for scale in (1.0, 1.1, 0.9)] for name in names}
    table = sweep.table(trials, runs=10)
    assert table["contender"].tolist() == names
    assert table["JOBS=auto is faster by"].tolist() == [1.0, 2.0, 1.6, 1.8]
    assert table["a run, s"].tolist() == [5.0, 10.0, 8.0, 9.0]
    assert table["cores kept busy"].tolist() == [1.5] * 4


def test_all_contenders_do_the_same_work() -> None:
    config = sweep.composed("quick")
    assert sweep.ranks(config) == [1, 2, 4, 8, 16, 32, 64]
    given, loop = map(json.loads, sweep.peer("quick", 2)[3:])
    assert loop == sweep.ranks(config) * 2
    assert given["training"]["lr"] == 3e-3 and given["training"]["epochs"] == config["training"]["epochs"] == 2
    assert given["task"] == config["task"] and given["model"] == config["model"]
    assert "seed=0,1" in sweep.lora_lab("quick", 2)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["--rounds", "0", "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
