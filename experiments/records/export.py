"""Stored and recorded runs for a tracker to show: each once, under its run id, as if it had been tracked while it was
trained (`experiments.trackers`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments import trackers
from experiments.listing import SWEEP
from experiments.records import archive
from experiments.records.source import Run, Runs
from lora.config import InputError


def runs_in(folder: Path) -> Iterator[Run]:
    """The runs of results/<preset>/<study>, of all studies in results/<preset>, or of results/runs; each once.

    Raises InputError if the folder has none, or if a study's list or records are damaged.
    """
    names = (SWEEP, archive.ARCHIVE)
    studies = sorted({path.parent for name in names for path in (*folder.glob(name), *folder.glob(f"*/{name}"))})
    found: dict[str, Run] = {}
    for study_dir in studies:
        found |= {run.run_id: run for run in Runs(study_dir, study_dir.parent.parent / "runs")}
    if not studies:
        places = sorted(path.parent for path in folder.glob("[!.]*/metrics.json"))
        found = {place.name: Run(place.name, place, None, "lora-lab run") for place in places}
    if not found:
        raise InputError(f"{folder} has no runs: give results/<preset>, a study's folder in it, or results/runs")
    yield from found.values()


def curve(run: Run) -> list[tuple[int, Mapping[str, float]]]:
    """Each row of history.csv as a step and its values; none of a record without them.

    Raises InputError if the run is damaged.
    """
    if not run.has_history:
        return []
    columns = run.history()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return run.read(lambda: [(int(row["step"]), trackers.values(row)) for row in rows])


def export(run: Run, tracker: str, out: Path) -> bool:
    """Write a run into `out`; False if it is there.

    Raises InputError if the package of the tracker is not installed, or the run is damaged.
    """
    if trackers.told(out, run.run_id):
        return False
    points, scores = curve(run), run.read(lambda: trackers.scores(run.metrics))
    with trackers.tracking(tracker, out, run.run_id, run.config) as to:
        for step, values in points:
            to.log(step, values)
        to.score(scores)
    return True
