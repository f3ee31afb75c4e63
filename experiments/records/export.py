"""Stored and recorded runs for a tracker to show: each once, under its run id, with settings, curves and scores.

Training knows no tracker. What is exported is read from the runs, so that it can be done at any time, and again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.listing import SWEEP
from experiments.records import archive
from experiments.records.source import Run, Runs
from lora.config import InputError

CURVES = ("loss", "lr", "metric")  # of history.csv
EXTRA = "pip install 'lora-lab[trackers]'"


class Point(NamedTuple):
    """What is known after a step: names as `train/loss`."""

    step: int
    values: dict[str, float]


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


def settings(run: Run) -> dict[str, Any]:
    """The settings that define a run, flat: `method.r`. What is nested deeper, or no number or text, is text."""
    found: dict[str, Any] = {}
    for group, fields in run.config.items():
        inner = {f"{group}.{name}": value for name, value in fields.items()} if isinstance(fields, Mapping) else None
        found |= {group: fields} if inner is None else inner
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in found.items()}


def curve(run: Run) -> list[Point]:
    """The rows of history.csv; none of a record without them. Raises InputError if the run is damaged."""
    if not run.has_history:
        return []
    columns = run.history()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return run.read(
        lambda: [
            Point(int(row["step"]), {f"{row['split']}/{name}": float(row[name]) for name in CURVES if row.get(name)})
            for row in rows
        ]
    )


def scores(run: Run) -> dict[str, float]:
    """The scores of a finished run: `final/test/accuracy`."""
    rows = run.read(lambda: [(row["split"], row["metric"], row["value"]) for row in run.metrics["metrics"]])
    return {f"final/{split}/{metric}": float(value) for split, metric, value in rows if value is not None}


def to_tensorboard(run: Run, out: Path) -> bool:
    """Write a run into `out`/<run_id>, as a whole or not at all; False if it is there.

    Raises InputError if TensorBoard is not installed, or the run is damaged.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"--to tensorboard needs the package tensorboard ({error}): {EXTRA}") from error
    place = out / run.run_id
    if place.exists():
        return False
    known, points, last = settings(run), curve(run), scores(run)
    begun = out / f".{run.run_id}"
    shutil.rmtree(begun, ignore_errors=True)  # of an export that was killed
    with SummaryWriter(str(begun)) as writer:
        for point in points:
            for name, value in point.values.items():
                writer.add_scalar(name, value, point.step)
        writer.add_hparams(known, last, run_name=".", global_step=points[-1].step if points else 0)
    begun.rename(place)
    return True


def to_wandb(run: Run, out: Path) -> bool:
    """Write a run of Weights & Biases into `out`, offline unless WANDB_MODE says otherwise; False if that was done.

    Raises InputError if wandb is not installed, or the run is damaged.
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError(f"--to wandb needs the package wandb ({error}): pip install wandb") from error
    mark = out / ".exported" / run.run_id
    if mark.exists():
        return False
    known, points, last = settings(run), curve(run), scores(run)
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_MODE", "offline")
    quiet = wandb.Settings(silent=True, x_disable_stats=True)
    tracked = wandb.init(project="lora-lab", id=run.run_id, name=run.run_id, dir=out, config=known, settings=quiet)
    for point in points:
        tracked.log({**point.values, "step": point.step})
    tracked.summary.update(last)
    tracked.finish()
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    return True


TRACKERS = {"tensorboard": to_tensorboard, "wandb": to_wandb}
