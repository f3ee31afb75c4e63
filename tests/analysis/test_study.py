import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import study
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.studies.latency import study as latency
from lora.config import InputError

STUDY = "rank_ablation"
ROOT = Path(__file__).parents[2]


def test_unknown_study_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="latency, .*rank_ablation, .*subspace"):
        study.run_study(tmp_path / "ranks", tmp_path)


def test_nothing_is_redrawn_until_a_run_changes_or_an_output_goes(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    run_id = make_run()
    outputs = study.run_study(study_dir, runs_dir)
    picture, stamp = study_dir / "rank_ablation.png", study_dir / "provenance.json"
    assert {picture, stamp} <= set(outputs)

    def redrawn() -> bool:
        before = picture.stat().st_mtime_ns if picture.exists() else None
        assert study.run_study(study_dir, runs_dir) == outputs
        return picture.stat().st_mtime_ns != before

    make_run()  # the runner lists a reused run again
    assert not redrawn()
    picture.unlink()
    assert redrawn()
    metrics = runs_dir / run_id / "metrics.json"
    metrics.write_text(metrics.read_text().replace("0.8", "0.7"))
    assert redrawn()
    stamp.write_text("{")
    assert redrawn()
    assert json.loads(stamp.read_text())["outputs"]


def test_a_study_of_files_is_redrawn_when_one_of_them_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "quick" / "latency"
    folder.mkdir(parents=True)
    built: list[str] = []

    def page(data: Data) -> str:
        built.append((data.folder / "a.csv").read_text())
        return built[-1]

    monkeypatch.setattr(latency, "STUDY", Study({}, [page], runs=None, reads=("a.csv", "b.csv")))
    (folder / "a.csv").write_text("1")
    with pytest.raises(InputError, match=r"has no b\.csv; `make latency PRESET=quick` makes it"):
        study.run_study(folder, tmp_path)
    (folder / "b.csv").write_text("2")
    outputs = study.run_study(folder, tmp_path)
    assert [path.name for path in outputs] == ["table.md", "provenance.json"]
    assert study.run_study(folder, tmp_path) == outputs
    assert built == ["1"]
    (folder / "b.csv").write_text("3")
    study.run_study(folder, tmp_path)
    assert built == ["1", "1"]
    assert json.loads((folder / "provenance.json").read_text())["trainings"] == []


def test_command_prints_results_or_one_error_line(
    make_run: Callable[..., str], study_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study.main([str(study_dir)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    make_run()
    assert study.main([str(study_dir)]) == 0
    assert "table.md" in capsys.readouterr().out


def test_the_rank_ablation_needs_no_torch() -> None:
    code = "import sys, analysis.study, analysis.studies.rank_ablation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_the_command_of_all_studies_is_the_one_that_was_typed(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_run()
    other = study_dir.with_name("compare_methods")
    shutil.copytree(study_dir, other)
    line = [sys.executable, "-m", "analysis.study", str(study_dir.parent)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    for folder in (study_dir, other):
        command = json.loads((folder / "provenance.json").read_text())["command"]
        assert command.split()[1:3] == ["-m", "analysis.study"], command
