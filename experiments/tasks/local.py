"""The user's own data: a CSV, TSV or JSONL file with a column of text (or two) and a column of labels."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.tasks import TaskData
from experiments.tasks._frames import read_table, require_classes, require_columns, split, task_data
from lora.config import InputError


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: path, validation_path, test_path, text_column, text_pair_column, label_column, split_seed, metric.

    Each of validation and test that has no file is a tenth of the training file, stratified. The labels are those found
    in the training file, sorted as text. Raises InputError for what `read` finds wrong, a file with one class, a file
    too small to split, and a label that the training file does not have.
    """
    if task["path"] is None:
        raise InputError("task.path is not set: give the training file, e.g. task.path=reviews.csv")
    path = Path(task["path"]).expanduser()
    train = read(path, task)
    require_classes(train, path)
    label_names = tuple(sorted(train["label"].unique()))
    tenth = max(1, len(train) // 10)
    held_out = {}
    for field in ("test_path", "validation_path"):
        if task[field] is None:
            train, held_out[field] = split(train, tenth, task["split_seed"])
            continue
        held_out[field] = read(Path(task[field]).expanduser(), task)
        new = sorted(set(held_out[field]["label"]) - set(label_names))
        if new:
            raise InputError(f"{task[field]} has labels that {path} does not have: {', '.join(new)}")
    return task_data(train, held_out["validation_path"], held_out["test_path"], label_names, task["metric"])


def read(path: Path, task: Mapping[str, Any]) -> pd.DataFrame:
    """Columns text, [text_pair], label of a file, as strings; indexed by the line on which a row starts.

    CSV may quote fields, TSV may not (a quotation mark is text). Raises InputError for an unknown file type, a file
    that cannot be read or has no rows, a missing column, and rows with an empty text or label.
    """
    readers = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: unknown file type '{path.suffix}'; there are: {', '.join(readers)}")
    table = readers[path.suffix.lower()](path)
    roles = {"text": task["text_column"], "text_pair": task["text_pair_column"], "label": task["label_column"]}
    columns = {role: column for role, column in roles.items() if column is not None}
    require_columns(table, list(columns.values()), path)
    if table.empty:
        raise InputError(f"{path} has no rows")
    for column in columns.values():
        empty = table.index[table[column].str.strip() == ""]
        if len(empty):
            raise InputError(f"{path}: {len(empty)} rows have an empty '{column}', the first on line {empty[0]}")
    return pd.DataFrame({role: table[column] for role, column in columns.items()})


def _read_csv(path: Path) -> pd.DataFrame:
    return _by_line(read_table(path, ",", csv.QUOTE_MINIMAL, skip_blank_lines=False))


def _read_tsv(path: Path) -> pd.DataFrame:
    return _by_line(read_table(path, "\t", skip_blank_lines=False))


def _by_line(table: pd.DataFrame) -> pd.DataFrame:
    """Index the rows by line number; blank lines go."""
    # A quoted field may span lines, so that the rows after it start later.
    breaks = table.apply(lambda column: column.str.count("\n")).sum(axis=1).cumsum().shift(fill_value=0)
    table.index = pd.Index(range(2, len(table) + 2)) + breaks.astype(int)
    return table[(table != "").any(axis=1)]


def _read_jsonl(path: Path) -> pd.DataFrame:
    rows: dict[int, dict[str, Any]] = {}
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                rows[number] = json.loads(line)
                if not isinstance(rows[number], dict):
                    raise InputError(f"{path}: line {number} is not a JSON object")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {number} is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}") from error
    if not rows:
        raise InputError(f"{path} is empty")
    # Objects, lest a missing value turn a column of integers into floats: the label 1 must not become 1.0.
    table = pd.DataFrame(list(rows.values()), index=list(rows), dtype=object)
    return table.where(table.notna(), "").astype(str)
