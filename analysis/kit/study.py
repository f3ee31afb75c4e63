"""A study as data: which tables, which page and which figures are derived from its runs.

CONTRIBUTING.md, "A study", shows how one is written. What it is called, its captions, its make target and its place in
the paper are in the YAML beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.kit import naming, pages, tables, tuning
from analysis.kit.data import Data
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
    """What is derived from the runs of a study; each function gets `Data`, the runs and the tables.

    cell: the columns that a mean is of: in each cell a seed occurs once. tables: a CSV file and the function that gives
    its frame, or None where there is nothing to put there. page: the blocks of table.md (`kit.pages`), its heading
    first. figures: a PNG file and what draws it: of `kit.marks`, or a function of Data and path that returns the
    path, or those beside it that it drew, or None.
    answers: the sentences that stand first in table.md, from all runs. runs and scores: how the runs are read, and
    which of their values the means are of. columns: those of runs.csv beside `tables.RUNS_COLUMNS`. one_rate: a method
    with runs of several learning rates is refused. reads: names or patterns of files in the study's folder, with what
    was measured on the runs; measures: files of the study's own measurements there, and what gives their rows and
    writes what is missing (`kit.measured.Rows`). A study with `runs` None is derived from the files of `reads` alone.
    base: pretrained weights are read too.
    """

    tables: Mapping[str, Table]
    page: Sequence[pages.Block]
    cell: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    answers: Callable[[pd.DataFrame], Sequence[str]] | None = None
    runs: Callable[[Path, Path], pd.DataFrame] | None = arranged
    scores: Callable[[pd.DataFrame], pd.DataFrame] = main_scores
    columns: Sequence[str] = ()
    one_rate: bool = False
    reads: tuple[str, ...] = ()
    measures: Mapping[str, Table] = field(default_factory=dict)
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
            data.runs[[*tables.RUNS_COLUMNS, *self.columns]].to_csv(outputs[0], index=False)
        outputs += [study_dir / name for name in self.measures if data.frame(name) is not None]
        for name in self.tables:
            if (frame := data.frame(name)) is not None:
                outputs.append(study_dir / name)
                frame.to_csv(outputs[-1], index=False, float_format="%.6g")
        outputs.append(pages.write(study_dir / "table.md", self.page, data, self.answers))
        for name, draw in self.figures.items():
            drawn = draw(data, study_dir / name) or ()
            outputs += [drawn] if isinstance(drawn, Path) else drawn
        return outputs

    def _check(self, data: Data) -> None:
        if data.scores.empty:
            raise InputError(f"{data.folder} has no finished run; `{tables.make_command(data.folder)}` trains them")
        if self.one_rate:
            tuning.check(data.scores, data.folder)
        tables.check_seeds(data.scores, self.cell, data.folder)
