"""Where the runs of a study are read: their folders where these are, otherwise the study's records."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml

from experiments import items as item_files
from experiments.items import Items
from experiments.records import archive
from experiments.records.schema import Predictions, Record
from experiments.records.sweep import Sweep, make_command, read_sweep
from experiments.store import RECORD, Store
from lora.config import InputError

T = TypeVar("T")
_BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)


class Run:
    """A run of a study: of its folder `place`, or of its record in the file `place`. Files are read when asked for."""

    def __init__(self, run_id: str, place: Path, record: Record | None, command: str) -> None:
        self.run_id, self.place, self.record, self._command = run_id, place, record, command

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml. Raises InputError if it is missing or damaged."""
        if self.record:
            return self.record.config or {}
        return self.read(lambda: dict(yaml.safe_load((self.place / "config.yaml").read_text(encoding="utf-8"))))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json. Raises InputError if it is missing or damaged."""
        if self.record:
            return self.record.metrics or {}
        return self.read(lambda: dict(json.loads((self.place / "metrics.json").read_text(encoding="utf-8"))))

    @property
    def has_history(self) -> bool:
        """False for a record without a history."""
        return self.record is None or self.record.history is not None

    def history(self) -> dict[str, list[str]]:
        """The columns of history.csv, as text. Raises InputError if it is missing or damaged."""
        if self.record:
            return self._recorded(self.record.history, "history")
        path = self.place / "history.csv"
        try:
            with path.open(encoding="utf-8", newline="") as file:
                header, *rows = csv.reader(file)
            return {name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
        except (OSError, ValueError) as error:
            raise self.damaged(error, path) from error

    @cached_property
    def predictions(self) -> Predictions:
        """What studies say of predictions.jsonl. Raises InputError if it is missing or damaged."""
        if self.record:
            return self._recorded(self.record.predictions, "predictions")
        path = self.place / "predictions.jsonl"
        try:
            with path.open(encoding="utf-8") as file:
                return Predictions.of([json.loads(line) for line in file])
        except _BAD as error:
            raise self.damaged(error, path) from error

    @cached_property
    def packed_items(self) -> dict[str, Any] | None:
        """items.json; None of a run of before there was such a file. Raises InputError if it is damaged."""
        if self.record:
            return self.record.items
        path = self.place / item_files.FILE
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
            item_files.unpack(found)
        except FileNotFoundError:
            return None
        except _BAD as error:
            raise self.damaged(error, path) from error
        return found

    def items(self) -> Items:
        """What became of each test item. Raises InputError as `packed_items`, and if it was not kept."""
        return item_files.unpack(self._recorded(self.packed_items, "test items"))

    def shown(self) -> list[dict[str, Any]]:
        """The first entries of predictions.jsonl. Raises InputError as `predictions`, and if they were not kept."""
        return self._recorded(self.predictions.shown, "texts that were written")

    def read(self, what: Callable[[], T]) -> T:
        """The value of `what`, which reads this run. Raises InputError where it finds the run to be damaged."""
        try:
            return what()
        except _BAD as error:
            if isinstance(error, InputError):
                raise
            raise self.damaged(error) from error

    def damaged(self, error: Exception, path: Path | None = None) -> InputError:
        """The error that says that this run is damaged, or one of its files is."""
        reason = f"({type(error).__name__}: {' '.join(str(error).split())})"
        if self.record:
            return InputError(f"{self.place}: the record of run {self.run_id} is damaged {reason}")
        what = f"{path} is missing or damaged" if path else f"run folder {self.place} is damaged"
        return InputError(f"{what} {reason}; delete {self.place}, `{self._command}` trains it again")

    def _recorded(self, value: T | None, what: str) -> T:
        if value is None:
            first = f"delete {self.place}, " if self.place.is_dir() else ""
            raise InputError(f"the record of run {self.run_id} has no {what}; {first}`{self._command}` trains it again")
        return value


class Runs:
    """The runs of a study, by run_id: `runs[run_id]`. They are iterated over in the order of `sweep`, the list of them.

    A run that was computed is read from its folder in runs_dir, others from study_dir's records; one that was unpacked
    there from another study's records, from those. Raises InputError as `read_sweep`, and if the records are damaged.
    """

    def __init__(self, study_dir: Path, runs_dir: Path) -> None:
        self.study_dir, self.store = study_dir, Store(runs_dir)
        self.sweep: Sweep = read_sweep(study_dir)
        self._records = {record.run_id: record for record in archive.read(self._archive)}

    @property
    def _archive(self) -> Path:
        return self.study_dir / archive.ARCHIVE

    def __iter__(self) -> Iterator[Run]:
        return (self[run_id] for run_id in self.sweep.roles)

    def __getitem__(self, run_id: str) -> Run:
        """Raises InputError if the run is in neither place."""
        folder, command = self.store.folder(run_id), make_command(self.study_dir)
        record = self._records.get(run_id)
        if record and record.error is not None:
            record = None
        of_another = unpacked(folder)
        if record and (of_another or run_id not in self.store):
            return Run(run_id, self._archive, record, command)
        if folder.is_dir():
            return Run(run_id, folder, of_another, command)
        raise InputError(f"run {run_id} of {self.study_dir} is not in {self.store.root}; `{command}` trains it")

    def failed(self, run_id: str) -> Run | None:
        """A run that failed, as far as its config was kept. Raises InputError if that is damaged."""
        folder, record = self.store.failure(run_id), self._records.get(run_id)
        if (folder / "config.yaml").is_file():
            return Run(run_id, folder, None, make_command(self.study_dir))
        if record and record.config:
            return Run(run_id, self._archive, record, make_command(self.study_dir))
        return None


def unpacked(folder: Path) -> Record | None:
    """The record that a run's folder was unpacked from, None if the run was computed here.

    Raises InputError if it is damaged.
    """
    path = folder / RECORD
    try:
        record = Record.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except _BAD as error:
        raise InputError(f"{path} is damaged ({error}); delete {folder} and unpack its study again") from error
    fault = record.fault()
    if fault:
        raise InputError(f"{path} is damaged: {fault}; delete {folder} and unpack its study again")
    return record
