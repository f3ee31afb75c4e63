"""history.csv of a run: a row a training step, and a row an epoch for validation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from experiments import trackers
from experiments.csv_schema import Column, Schema

HISTORY = Schema(
    "runs/<run_id>", "history.csv", "a training step, or the validation after an epoch", ("step", "split"),
    "python -m experiments.run",
    (
        Column("step", int, "optimizer steps so far"),
        Column("epoch", int, "from 1"),
        Column("split", str, "train or validation"),
        Column("loss", float, "mean of the batch, or of the validation split", "nats"),
        Column("lr", float, "of this step; empty for validation"),
        Column("tokens", int, "trained on so far, without padding"),
        Column("metric", float, "what a learning rate is chosen by, on validation data; empty for training steps"),
    ),
)  # fmt: skip


class History(list[dict[str, Any]]):
    """Rows of history.csv, each in the file, and told to a tracker, as soon as it is known, so that a long run can be
    watched."""

    def __init__(self, path: Path, tracker: trackers.Tracker | None = None) -> None:
        super().__init__()
        self.tracker = tracker
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, HISTORY.names)
        self.writer.writeheader()
        self.file.flush()

    def append(self, row: dict[str, Any]) -> None:
        """One row more. Raises OSError if it cannot be written."""
        super().append(row)
        self.writer.writerow(row)
        self.file.flush()
        if self.tracker:
            self.tracker.log(row["step"], trackers.values(row))
