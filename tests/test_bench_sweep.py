"""The benchmark of whole sweeps; what it times is tried in test_make.py and tests/experiments/engines."""

import itertools
import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from bench import sweep
from bench.sweep import Trial
from experiments import processor
from experiments.models import choose_runtime


def test_ratios_are_to_the_sweep_with_workers_of_the_same_run() -> None:
    walls = dict(zip(sweep.CONTENDERS, (50.0, 100.0, 80.0, 90.0), strict=True))
    slower = {"minilm": 1, "text2sql": 4}
    trials = {
        (name, contender): [Trial(wall * slower[name] * scale, wall * slower[name] * 1.5) for scale in (1.0, 1.1, 0.9)]
        for name, (contender, wall) in itertools.product(sweep.SETTINGS, walls.items())
    }
    table = sweep.table(trials, {"minilm": 10, "text2sql": 20})
    assert table["contender"].tolist() == [*walls, *walls]
    assert table["JOBS=auto is faster by"].tolist() == [1.0, 2.0, 1.6, 1.8] * 2
    assert table["a run, s"].tolist() == [5.0, 10.0, 8.0, 9.0, 10.0, 20.0, 16.0, 18.0]
    assert table["cores kept busy"].tolist() == [1.5] * 8
    assert table["run"].nunique() == 2


@pytest.mark.parametrize("name", sweep.SETTINGS)
def test_all_contenders_do_the_same_work(name: str) -> None:
    command = sweep.lora_lab(name, "quick", 2)
    ranks = next(part for part in command if part.startswith("method.r=")).removeprefix("method.r=")
    assert "seed=0,1" in command
    given, loop = map(json.loads, sweep.peer(name, "quick", 2)[3:])
    assert loop == [int(r) for r in ranks.split(",")] * 2
    one = [part for part in command[3:] if not part.startswith(("method.r=", "seed=", "results_dir"))]
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = compose("config", [*one, "method.r=1"])
    assert given["training"]["lr"] == config.training.lr == 3e-3
    for field in ("epochs", "batch_size", "schedule", "warmup_ratio"):
        assert given["training"][field] == config.training[field]
    assert given["task"]["train_examples"] == config.task.train_examples
    assert given["model"]["path"] == config.model.path
    assert given["runtime"]["eval_batch_size"] == config.runtime.eval_batch_size


def test_the_note_says_on_what_it_was_measured() -> None:
    runtime = choose_runtime()
    said = sweep.note(["minilm", "text2sql"], "smoke", 1, 2)
    assert processor.kind(runtime.device) in said and str(runtime.dtype).removeprefix("torch.") in said
    assert "MiniLM-L6, Rotten Tomatoes, r = 1, 2; SmolLM2-135M, text2sql, r = 1, 4" in said and "2 rounds" in said


def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (["--rounds", "0"], ["--run", "gpt2"]):
        assert sweep.main([*wrong, "--out", str(tmp_path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    failing = [sys.executable, "-c", "raise SystemExit('error: no room')"]
    monkeypatch.setattr(sweep, "CONTENDERS", {"lora-lab, JOBS=auto": lambda *sweep: failing})
    assert sweep.main(["--run", "minilm", "--preset", "smoke", "--rounds", "1", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: lora-lab, JOBS=auto failed: no room\n"
    assert not list(tmp_path.iterdir())
