"""What the tables, the page and the figures of a study are derived from: its runs, and the tables themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from analysis.kit import collapses, measured, tables, tuning
from experiments.csv_schema import Schema

if TYPE_CHECKING:
    from analysis.kit.study import Study


T = TypeVar("T")
RATES = "learning_rates.csv"


class Data:
    """A study's data, or a part of them (`at`): frames are made when they are first asked for, and once.

    data["table.csv"] is the frame of that file. folder: the study's, results/<preset>/<study>; base: where the
    pretrained weights are, if that is a folder of the user's own.
    """

    def __init__(self, study: Study, folder: Path, runs_dir: Path, base: str | None = None) -> None:
        self.study, self.folder, self.runs_dir, self.base = study, folder, runs_dir, base
        self.place: Mapping[str, Any] = {}
        self._made: dict[Callable[[Data], Any], Any] = {}
        self._frames: dict[str, pd.DataFrame | None] = {}

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs, those of the tuning too: a row a run, split and metric, in the study's order."""
        if self.study.runs is None:
            raise TypeError(f"{self.folder.name} is a study without runs")
        return self.study.runs(self.folder, self.runs_dir)

    @cached_property
    def final(self) -> pd.DataFrame:
        """The rows of the study's own runs."""
        return tables.in_role(self.runs, "study")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Of the study's own runs what its means are of: `value`, a fraction, NaN of a run that has collapsed."""
        return self.study.scores(collapses.apart(self.final))

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The runs that failed, as far as their settings are known: `tables.FAILED_COLUMNS`."""
        return self.study.failed(self.folder, self.runs_dir)

    @cached_property
    def rates(self) -> pd.DataFrame:
        """The learning rates that were tried for each method: of `kit.tuning.rates`."""
        return tuning.rates(self.runs, self.failed)

    def frame(self, name: str) -> pd.DataFrame | None:
        """The table of a CSV file; None where the study has nothing to put there."""
        if name not in self._frames:
            self._frames[name] = {**self.study.measures, **self.study.tables}[name](self)
        return self._frames[name]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """As `frame`, of a file that there always is. Raises KeyError of another."""
        found = self.frame(name)
        if found is None:
            raise KeyError(name)
        return found

    def read(self, schema: Schema, run_ids: Collection[str] | None = None) -> pd.DataFrame:
        """The rows of a measured file: of these runs, of all of the study's own, or all if it has no runs."""
        if schema.file not in self._frames:
            if self.study.runs:
                found = measured.read(
                    self.folder, schema, self.final["run_id"].unique() if run_ids is None else run_ids
                )
            else:
                found = measured.whole(self.folder, schema)
            self._frames[schema.file] = _rows(found, self.place)
        return self[schema.file]

    def once(self, function: Callable[[Data], T]) -> T:
        """What the function makes of these data, made once: for what is no file, but several blocks need."""
        if function not in self._made:
            self._made[function] = function(self)
        found: T = self._made[function]
        return found

    def at(self, place: Mapping[str, Any]) -> Data:
        """The part with these values: each frame's rows that have them, in those columns that the frame has."""
        part = copy(self)
        part._made = {}
        part.place = {**self.place, **place}
        whole = {name: self.frame(name) for name in (*self.study.measures, *self.study.tables)}
        # A rate may be chosen by another metric than the one that is reported.
        less = {name: value for name, value in place.items() if name != "metric"}
        part._frames = {
            name: None if frame is None else _rows(frame, less if name == RATES else place)
            for name, frame in whole.items()
        }
        if self.study.runs:
            part.rates = _rows(self.rates, less)
            part.runs, part.final, part.scores = (_rows(frame, place) for frame in (self.runs, self.final, self.scores))
        return part


def _rows(frame: pd.DataFrame, place: Mapping[str, Any]) -> pd.DataFrame:
    for name, value in place.items():
        if name in frame:
            frame = frame[frame[name] == value]
    return frame
