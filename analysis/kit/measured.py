"""What was measured on stored runs, as CSV files in a study's folder: by `python -m experiments.<measurement>`, or by
the study itself on adapters, which need not be there any more."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import tables
from experiments.csv_schema import Schema
from experiments.measure.results import write
from lora.config import InputError

# Columns that are text, whatever they look like: a run_id may be all digits.
TEXT = (
    "run_id", "other_run_id", "lora_run_id", "model", "task", "label", "settings", "method", "layer", "weight_type",
    "side",
)  # fmt: skip
MACHINE = "machine.json"
JOIN = "+"  # between the run_ids of a row that is a mean over several runs


def whole(study_dir: Path, schema: Schema) -> pd.DataFrame:
    """The file of `schema`, of a measurement that no stored run is behind.

    Raises InputError if the file is missing, is damaged, lacks a column, or has no rows.
    """
    path, advice = study_dir / schema.file, f"`{tables.make_command(study_dir)}` makes it"
    try:
        frame = schema.read(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read; {advice}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); delete it, {advice} again") from error
    if frame.empty:
        raise InputError(f"{path} has no rows; delete it, {advice} again")
    return frame


def machine(study_dir: Path) -> dict[str, Any]:
    """machine.json: on what was measured. Raises InputError if it is missing or damaged."""
    path = study_dir / MACHINE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        advice = f"delete {study_dir}, `{tables.make_command(study_dir)}` measures again"
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}); {advice}") from error


def read(study_dir: Path, schema: Schema, run_ids: Collection[str]) -> pd.DataFrame:
    """The file of `schema`, results on stored runs: the rows of those in `run_ids`.

    Raises InputError if the file is missing, is damaged, or lacks one of these runs.
    """
    path, command = study_dir / schema.file, tables.make_command(study_dir)
    if not path.is_file():
        raise InputError(f"{study_dir} has no {schema.file}; `{command}` measures it")
    try:
        table = schema.read(path)
        if table.isna().to_numpy().any():
            raise ValueError("a value is missing")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({reason}); delete it, `{command}` measures anew") from error
    lacking = sorted(set(run_ids) - set(table["run_id"]))
    if lacking:
        raise InputError(f"{path} lacks {len(lacking)} runs of the study, as {lacking[0]}; `{command}` measures them")
    return table[table["run_id"].isin(run_ids)].reset_index(drop=True)


class Rows:
    """The rows of a CSV file that are of the runs, or pairs of runs, of a study: measured once, on their adapters.

    keys: the columns that name a run or a pair; wanted: the values of those that the study has (None: all
    that are there). Rows of others are left out. `missing`: the wanted ones that have no row. Raises InputError if the
    file is damaged.
    """

    def __init__(self, path: Path, keys: Sequence[str], wanted: Iterable[tuple[str, ...]] | None = None) -> None:
        self.path, self.keys = path, list(keys)
        self._wanted = None if wanted is None else dict.fromkeys(wanted)
        self._read(path.read_text(encoding="utf-8") if path.is_file() else "")

    def add(self, rows: pd.DataFrame, digits: int = 6) -> None:
        """Adds the rows of what is missing, numbers to so many significant digits, and writes the file."""
        there = self._found()
        new = rows[pd.Series([key not in there for key in self._at(rows)], rows.index, dtype=bool)].copy()
        for name in new.select_dtypes("float"):
            new[name] = [float(f"{value:.{digits}g}") for value in new[name]]
        both = pd.concat([self.frame, new], ignore_index=True) if len(self.frame) else new
        self._read(_text(both))  # what is derived is derived from the text, then as later
        self.write(self.frame)

    def drop(self, run_ids: Collection[str]) -> None:
        """Leaves out the rows of these runs, which are missing then."""
        self._read(_text(self.frame[~self.frame["run_id"].isin(run_ids)]))

    def write(self, frame: pd.DataFrame) -> None:
        """Writes these rows: those of the file, arranged, with further columns."""
        write(self.path, _text(frame))

    def _read(self, text: str) -> None:
        header, *lines = list(csv.reader(io.StringIO(text))) or [self.keys]
        try:
            if any(len(line) != len(header) for line in lines) or text[-1:] not in ("", "\n"):
                raise ValueError("a line is cut short")
            frame = pd.DataFrame(lines, columns=header, dtype=object)
            self.frame = pd.DataFrame({name: _typed(frame[name]) for name in frame})
            at = [_runs(key) for key in self._at(self.frame)]
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{self.path} is damaged ({' '.join(str(error).split())}); restore it, or delete it to measure anew"
            ) from error
        self.missing: list[tuple[str, ...]] = []
        if self._wanted is not None:
            own = pd.Series([all(key in self._wanted for key in keys) for keys in at], dtype=bool)
            self.frame = self.frame[own].reset_index(drop=True)
            found = self._found()
            self.missing = [key for key in self._wanted if key not in found]

    def _at(self, frame: pd.DataFrame) -> list[tuple[str, ...]]:
        return list(frame[self.keys].astype(str).itertuples(index=False, name=None))

    def _found(self) -> set[tuple[str, ...]]:
        return {key for keys in self._at(self.frame) for key in _runs(keys)}


def ids(run_ids: Iterable[str]) -> list[tuple[str]]:
    """Keys of single runs."""
    return [(run_id,) for run_id in run_ids]


def _runs(key: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The keys of a row's runs: of one, or of those that it is the mean of."""
    return [(run, *key[1:]) for run in key[0].split(JOIN)]


def _text(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.12g")


def _typed(column: pd.Series) -> pd.Series:
    """Text as whole numbers, as truth values or as numbers, of which empty ones are NaN; TEXT stays as it is."""
    if column.name in TEXT or column.empty:
        return column
    if column.isin(["True", "False"]).all():
        return column == "True"
    if column.str.fullmatch(r"-?\d+").all():
        return column.astype(int)
    return column.replace("", "nan").astype(float)
