"""The user's own data, a CSV, TSV or JSONL file: texts (or pairs of them) with labels, or prompts with completions."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.kinds import holds_pairs
from experiments.tasks import TaskData, TextData, _pairs
from experiments.tasks._frames import read_table, require_classes, require_columns, split, task_data
from lora.config import InputError


def load(task: Mapping[str, Any]) -> TaskData | TextData:
    """Task fields: path, validation_path, test_path, text_column, text_pair_column, label_column, prompt_column,
    completion_column, split_seed, metric (null: accuracy of labels, rouge_lf of completions).

    A file without the text column, but with that of prompts or completions, holds prompts and completions: see
    `_pairs.load`. Otherwise each of validation and test that has no file is a tenth of the training file, stratified.
    The labels are those found in the training file, sorted as text. Raises InputError for what `read` and `labelled`
    find wrong, a file with one class, a file too small to split, and a label that the training file does not have.
    """
    if task["path"] is None:
        raise InputError("task.path is not set: give the training file, e.g. task.path=reviews.csv")
    files = {
        field: Path(task[field]).expanduser()
        for field in ("path", "test_path", "validation_path")
        if task[field] is not None
    }
    tables = {field: read(file) for field, file in files.items()}
    if holds_pairs(set(tables["path"].columns), task):
        return _pairs.load(task, files, tables)
    frames = {field: labelled(table, task, files[field]) for field, table in tables.items()}
    train = frames.pop("path")
    require_classes(train, files["path"])
    label_names = tuple(sorted(train["label"].unique()))
    for field, frame in frames.items():
        new = sorted(set(frame["label"]) - set(label_names))
        if new:
            raise InputError(f"{task[field]} has labels that {files['path']} does not have: {', '.join(new)}")
    tenth = max(1, len(train) // 10)
    for field in ("test_path", "validation_path"):
        if field not in frames:
            train, frames[field] = split(train, tenth, task["split_seed"])
    metric = task["metric"] or "accuracy"
    return task_data(train, frames["validation_path"], frames["test_path"], label_names, metric)


def read(path: Path) -> pd.DataFrame:
    """The table in a file, indexed by the line on which a row starts; cells are strings, or what a JSONL file has.

    CSV may quote fields, TSV may not (a quotation mark is text). What a JSONL row lacks is an empty string. Raises
    InputError for an unknown file type, and a file that cannot be read or has no rows.
    """
    readers = {".csv": _read_csv, ".tsv": _read_tsv, ".jsonl": _read_jsonl}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: unknown file type '{path.suffix}'; there are: {', '.join(readers)}")
    return readers[path.suffix.lower()](path)


def labelled(table: pd.DataFrame, task: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Columns text, [text_pair], label of a table, as strings.

    Raises InputError for a missing column, a table without rows, and rows with an empty text or label.
    """
    roles = {"text": task["text_column"], "text_pair": task["text_pair_column"], "label": task["label_column"]}
    columns = {role: column for role, column in roles.items() if column is not None}
    require_columns(table, list(columns.values()), path)
    if table.empty:
        raise InputError(f"{path} has no rows")
    frame = pd.DataFrame({role: table[column].astype(str) for role, column in columns.items()})
    for role, column in columns.items():
        empty = frame.index[frame[role].str.strip() == ""]
        if len(empty):
            raise InputError(f"{path}: {len(empty)} rows have an empty '{column}', the first on line {empty[0]}")
    return frame


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
    return table.where(table.notna(), "")
