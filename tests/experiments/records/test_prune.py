import shutil
from pathlib import Path

import pytest
import recorded_runs as made

from experiments.records import __main__ as command
from experiments.records import archive
from experiments.records.prune import plan
from experiments.store import Store


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def runs(results: Path) -> tuple[str, str]:
    """A run that a study lists, and one that none does."""
    return made.store(results, 0), made.store(results, 1)


def test_adapters_of_listed_runs_go_once_they_are_recorded(
    results: Path, runs: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    kept, other = runs
    study = made.listed(results / "quick" / "alpha@mine", (kept, "study"))
    store = Store(results / "runs")
    assert command.main(["prune", str(results / "runs")]) == 0
    assert "5.0 MB in 1 adapters can be freed; --yes does it" in capsys.readouterr().out
    assert store.has_adapter(kept) and not (study / archive.ARCHIVE).exists()
    assert command.main(["prune", str(results / "runs"), "--yes"]) == 0
    assert "5.0 MB in 1 adapters freed" in capsys.readouterr().out
    assert store.holds(kept) and not store.has_adapter(kept) and store.has_adapter(other)
    assert [record.run_id for record in archive.read(study / archive.ARCHIVE)] == [kept]
    assert (store.folder(kept) / "history.csv").exists()
    assert plan(results / "runs", unlisted=False) == []


def test_a_pruned_run_is_whole_by_its_manifest(results: Path) -> None:
    store = Store(results / "runs")
    made.store(results, 0)
    name = next(path.name for path in store.root.iterdir())
    shutil.copytree(store.folder(name), results / "copy")
    with store.writing(name, made.definition()) as folder:  # as the runner does, with a manifest
        shutil.copytree(results / "copy", folder, dirs_exist_ok=True)
    made.listed(results / "desk" / "alpha", (name, "study"))
    assert command.main(["prune", str(store.root), "--yes"]) == 0
    assert store.holds(name) and not store.holds(name, weights=True)
    assert sorted(path.name for path in store.root.iterdir() if not path.name.startswith(".")) == [name]


def test_unlisted_runs_go_whole_and_listed_ones_stay(results: Path, runs: tuple[str, str]) -> None:
    kept, other = runs
    lost, listed_failure = made.fail(results, 2), made.fail(results, 3)
    made.listed(results / "quick" / "alpha", (kept, "study"), (listed_failure, "study", "the loss is nan"))
    assert {freed.folder.name for freed in plan(results / "runs", unlisted=True)} == {other, f"{lost}.failed"}
    assert command.main(["prune", str(results / "runs"), "--unlisted", "--yes"]) == 0
    assert {path.name for path in (results / "runs").iterdir()} == {kept, f"{listed_failure}.failed"}
    assert Store(results / "runs").has_adapter(kept)


def test_nothing_is_removed_if_a_study_cannot_be_packed(
    results: Path, runs: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    made.listed(results / "quick" / "alpha", (runs[0], "study"), ("0123456789ab", "study"))
    assert command.main(["prune", str(results / "runs"), "--yes"]) == 2
    assert "0123456789ab" in capsys.readouterr().err
    assert all(Store(results / "runs").has_adapter(run) for run in runs)
    assert command.main(["prune", str(results / "none")]) == 2
    assert "there is no folder of runs" in capsys.readouterr().err
