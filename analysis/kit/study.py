"""A study as data: which tables, which page and which figures are derived from its runs.

CONTRIBUTING.md, "A study", shows how one is written. What it is called, its captions, its make target and its place in
the paper are in the YAML beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import naming, pages, tables, tuning
from analysis.kit.data import Data
from analysis.kit.tables import load_failed
from lora.config import InputError

Table = Callable[[Data], pd.DataFrame | None]
Figure = Callable[[Data, Path], Path | Sequence[Path] | None]


def arranged(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs of `tables.load_runs` by model and task, and in each the methods in their order."""
    return naming.arranged(tables.load_runs(study_dir, runs_dir))


def main_scores(final: pd.DataFrame) -> pd.DataFrame:
    """The test scores of a task's main metric."""
    return final[final["main"] & (final["split"] == "test")]


@dataclass(frozen=True)
class Study:
    """What is derived from the runs of a study. Functions get `Data`: the runs, and the tables made before."""

    # A CSV file and what gives its frame, or None where there is nothing to put there.
    tables: Mapping[str, Table]
    # The blocks of table.md, its heading first: of `kit.pages`.
    page: Sequence[pages.Block]
    # The columns that a mean is of: in each cell a seed occurs once.
    cell: Sequence[str] = ()
    # A PNG file and what draws it: of `kit.marks`, or a function of data and path. It returns the path, or those beside
    # it that it drew, or None.
    figures: Mapping[str, Figure] = field(default_factory=dict)
    # The sentences that stand first in table.md, from all runs.
    answers: Callable[[pd.DataFrame], Sequence[str]] | None = None
    # How runs are read; None: a study of measured files alone.
    runs: Callable[[Path, Path], pd.DataFrame] | None = arranged
    failed: Callable[[Path, Path], pd.DataFrame] = load_failed
    # Of the study's own runs the rows that its means are of.
    scores: Callable[[pd.DataFrame], pd.DataFrame] = main_scores
    # Columns of runs.csv after `tables.RUNS_COLUMNS`.
    columns: Sequence[str] = ()
    # Refuse a cell that has runs of several learning rates.
    one_rate: bool = False
    # How numbers are written in the tables.
    numbers: str | Callable[[Any], str] = "%.6g"
    # What writes further files, as samples.md.
    more: Sequence[Callable[[Data], Sequence[Path]]] = ()
    # Names or patterns of files in the study's folder with what was measured, on the runs or without any.
    reads: tuple[str, ...] = ()
    # Such files that the study measures itself, and what gives their rows and writes those missing (`measured.Rows`).
    measures: Mapping[str, Table] = field(default_factory=dict)
    # Whether pretrained weights are read.
    base: bool = False

    def build(self, study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
        """Writes runs.csv, the tables, table.md and the figures into study_dir; returns their paths.

        Raises InputError if the runs are missing or damaged, or if a seed of a cell has two runs.
        """
        data = Data(self, study_dir, runs_dir, base)
        outputs = []
        if self.runs:
            self._check(data)
            outputs.append(study_dir / "runs.csv")
            said = ["collapsed"] if data.runs["collapsed"].notna().any() else []
            data.runs[[*tables.RUNS_COLUMNS, *self.columns, *said]].to_csv(outputs[0], index=False)
        outputs += [study_dir / name for name in self.measures if data.frame(name) is not None]
        for name in self.tables:
            if (frame := data.frame(name)) is not None:
                outputs.append(study_dir / name)
                frame.to_csv(outputs[-1], index=False, float_format=self.numbers)
        outputs.append(pages.write(study_dir / "table.md", self.page, data, self.answers))
        for name, draw in self.figures.items():
            drawn = draw(data, study_dir / name) or ()
            outputs += [drawn] if isinstance(drawn, Path) else drawn
        return [*outputs, *(path for write in self.more for path in write(data))]

    def _check(self, data: Data) -> None:
        if data.scores.empty:
            raise InputError(f"{data.folder} has no finished run; `{tables.make_command(data.folder)}` trains them")
        tables.check_seeds(data.scores, self.cell, data.folder)
        if self.one_rate:
            tuning.check_rates(data.scores, self.cell, data.folder)
