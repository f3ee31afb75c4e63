"""The committed results of preset desk follow from what is committed: every table is derived from records again."""

import gzip
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from analysis import study
from analysis.studies.subspace import study as subspace
from experiments.records.archive import ARCHIVE, scan

DESK = Path(__file__).parents[2] / "results" / "desk"
STUDIES = sorted(folder.name for folder in study.studies_in(DESK))
NO_RUNS = ("gradients", "latency", "memory")  # derived from measurements beside them
DERIVED = ("runs.csv", "table.csv", "table.md")  # never measurements


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".md")}


@pytest.mark.parametrize("name", STUDIES)
def test_tables_follow_from_the_records_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "desk" / name
    shutil.copytree(DESK / name, folder, ignore=shutil.ignore_patterns("*.png", "provenance.json", *DERIVED))
    monkeypatch.setattr(Figure, "savefig", lambda self, path, *_, **__: Path(path).touch())
    if name == "subspace":  # 48 figures of up to 30 layers
        for draw in ("draw_ranks", "draw_seeds"):
            monkeypatch.setattr(subspace, draw, lambda *_: [])
    study.run_study(folder, tmp_path / "results" / "runs")
    assert sorted(tables(folder)) == sorted(tables(DESK / name))
    for table, content in tables(DESK / name).items():
        assert (folder / table).read_text(encoding="utf-8") == content.decode(), table


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in NO_RUNS])
def test_records_are_sound_and_small(name: str) -> None:
    path = DESK / name / ARCHIVE
    records, faults = scan(path)
    assert not faults
    assert path.stat().st_size < 10**6
    listed = (DESK / name / "runs.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in listed} == {record.run_id for record in records if record.error is None}
    assert path.read_bytes() == gzip.compress(
        "".join(f"{record.line()}\n" for record in records).encode(), compresslevel=9, mtime=0
    )
