"""Where runs can be watched: the files of TensorBoard or of Weights & Biases, each run once, under its run id.

A run writes its rows as they are trained (`tracker=tensorboard`), into `<results_dir>/<tracker>`; stored runs are
written by the same code (`experiments.records.export`). A tracker is no part of what defines a run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from lora.errors import InputError

CURVES = ("loss", "lr", "metric")  # of history.csv
PACKAGES = {"tensorboard": "lora-lab[trackers]", "wandb": "wandb"}  # a tracker's package, and what pip is asked for


class Tracker(Protocol):
    """What a run tells of itself."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """What is known after a step: names as `train/loss`."""

    def score(self, scores: Mapping[str, float]) -> None:
        """The scores of the finished run: names as `final/test/accuracy`."""

    def close(self) -> None:
        """Nothing more is told, be the run finished or not."""


class _TensorBoard:
    def __init__(self, out: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(out / run_id, ignore_errors=True)  # of a try that was cut off
        self.writer, self.settings, self.step = SummaryWriter(str(out / run_id)), dict(settings), 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def score(self, scores: Mapping[str, float]) -> None:
        self.writer.add_hparams(self.settings, dict(scores), run_name=".", global_step=self.step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """Offline, unless WANDB_MODE says otherwise."""

    def __init__(self, out: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import wandb

        for cut_off in out.glob(f"wandb/offline-run-*-{run_id}"):
            shutil.rmtree(cut_off)
        out.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.run = wandb.init(
            project="lora-lab", id=run_id, name=run_id, dir=out, config=dict(settings),
            mode=mode, settings=wandb.Settings(silent=True, x_disable_stats=True),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def score(self, scores: Mapping[str, float]) -> None:
        self.run.summary.update(dict(scores))

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any]], Tracker]] = {"tensorboard": _TensorBoard, "wandb": _Wandb}


def require(tracker: str) -> None:
    """Raises InputError if the package of a tracker is not installed."""
    if find_spec(tracker) is None:
        raise InputError(f"tracker {tracker} needs a package that is not installed: pip install '{PACKAGES[tracker]}'")


@contextmanager
def tracking(tracker: str, out: Path, run_id: str, config: Mapping[str, Any]) -> Iterator[Tracker]:
    """Tell of a run with this config; what `out` has of it is begun anew. After an error it does not count as `told`.

    Raises InputError as `require`.
    """
    require(tracker)
    _mark(out, run_id).unlink(missing_ok=True)
    told = TRACKERS[tracker](out, run_id, _flat(config))
    try:
        yield told
    finally:
        told.close()
    _mark(out, run_id).parent.mkdir(exist_ok=True)
    _mark(out, run_id).touch()


def told(out: Path, run_id: str) -> bool:
    """Whether `out` has all of a run."""
    return _mark(out, run_id).is_file()


def _mark(out: Path, run_id: str) -> Path:
    return out / ".told" / run_id


def values(row: Mapping[str, Any]) -> dict[str, float]:
    """What is drawn of a row of history.csv, as it was written or read: `train/loss`."""
    return {f"{row['split']}/{name}": float(row[name]) for name in CURVES if row.get(name) not in (None, "")}


def scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The scores in metrics.json: `final/test/accuracy`."""
    rows = [(row["split"], row["metric"], row["value"]) for row in metrics["metrics"]]
    return {f"final/{split}/{metric}": float(value) for split, metric, value in rows if value is not None}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that define a run, flat: `method.r`. What is nested deeper, or no number or text, is text."""
    found: dict[str, Any] = {}
    for group, fields in config.items():
        inner = {f"{group}.{name}": value for name, value in fields.items()} if isinstance(fields, Mapping) else None
        found |= {group: fields} if inner is None else inner
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in found.items()}
