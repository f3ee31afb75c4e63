"""The user's own data, a CSV, TSV or JSONL file: texts (or pairs of them) with labels, or prompts with completions."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split

from experiments.kinds import holds_pairs
from experiments.paths import user_path
from experiments.tasks import TaskData, TextData, _labels
from experiments.tasks._frames import columns, require_classes, require_columns, split, task_data
from experiments.tasks._reading import read
from lora.config import InputError


def load(task: Mapping[str, Any]) -> TaskData | TextData:
    """Task fields: path, validation_path, test_path, text_column, text_pair_column, label_column, prompt_column,
    completion_column, encoding (null: UTF-8), split_seed, metric (null: accuracy of labels, rouge_lf of completions).

    A file without the text column, but with that of prompts or completions, holds prompts and completions: see
    `_texts`. Otherwise each of validation and test that has no file is a tenth of the training file, stratified.
    The labels are those found in the training file, as `_labels.spellings` reads them, sorted as text. Raises
    InputError for what `read` and `labelled` find wrong, a file with one class, a file too small to split, and a label
    that the training file does not have.
    """
    if task["path"] is None:
        raise InputError("task.path is not set: give the training file, e.g. task.path=reviews.csv")
    files = {
        field: user_path(task[field]) for field in ("path", "test_path", "validation_path") if task[field] is not None
    }
    tables = {field: read(file, task.get("encoding")) for field, file in files.items()}
    if holds_pairs(set(tables["path"].columns), task):
        return _texts(task, files, tables)
    frames = {field: labelled(table, task, files[field]) for field, table in tables.items()}
    meant = _labels.spellings({label for frame in frames.values() for label in frame["label"]})
    frames = {field: frame.assign(label=frame["label"].map(meant)) for field, frame in frames.items()}
    train = frames.pop("path")
    _labels.warn(Counter(train["label"]), str(files["path"]))
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


def labelled(table: pd.DataFrame, task: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Columns text, [text_pair], label of a table, as strings.

    Raises InputError for a missing column, a table without rows, and rows with an empty text or label, or with a list
    or an object in the place of one.
    """
    roles = {"text": task["text_column"], "text_pair": task["text_pair_column"], "label": task["label_column"]}
    named = {role: column for role, column in roles.items() if column is not None}
    require_columns(table, list(named.values()), path)
    if table.empty:
        raise InputError(f"{path} has no rows")
    for column in named.values():
        nested = table.index[table[column].map(lambda cell: isinstance(cell, list | dict))]
        if len(nested):
            kind = "a list" if isinstance(table[column][nested[0]], list) else "an object"
            raise InputError(f"{path}: line {nested[0]}: '{column}' is {kind}: it should be a text or a number")
    frame = pd.DataFrame({role: table[column].astype(str) for role, column in named.items()})
    for role, column in named.items():
        empty = frame.index[frame[role].str.strip() == ""]
        if len(empty):
            raise InputError(f"{path}: {len(empty)} rows have an empty '{column}', the first on line {empty[0]}")
    return frame


def _texts(task: Mapping[str, Any], files: Mapping[str, Path], tables: Mapping[str, pd.DataFrame]) -> TextData:
    """Task fields: prompt_column, completion_column, split_seed, metric (null: rouge_lf). Tables go by field: path, …

    A completion may be a list: a training pair each, and the references of a test prompt. Rows with one prompt are one
    input. Each of validation and test that has no table is a tenth of the training table's prompts. The completion
    follows the prompt as both are written. Raises InputError for what `inputs` finds wrong, and too few prompts.
    """
    frames = {field: inputs(table, task, files[field]) for field, table in tables.items()}
    train = frames.pop("path")
    open_splits = [field for field in ("test_path", "validation_path") if field not in frames]
    if len(train) <= len(open_splits):
        raise InputError(f"{files['path']}: too few prompts to hold some out: there are {len(train)} different ones")
    tenth = max(1, len(train) // 10)
    for field in open_splits:
        train, frames[field] = train_test_split(train, test_size=tenth, random_state=task["split_seed"])
    validation, test = (
        columns(frames[field].itertuples(index=False, name=None), "prompt", "references")
        for field in ("validation_path", "test_path")
    )
    pairs = columns(train.explode("references").itertuples(index=False, name=None), "prompt", "completion")
    return TextData(pairs, validation, test, task["metric"] or "rouge_lf")


def inputs(table: pd.DataFrame, task: Mapping[str, Any], path: Path) -> pd.DataFrame:
    """Columns prompt and references, a row a prompt: its completions in the table's order, each once.

    Raises InputError, with the line, for a missing column, a table without rows, and a prompt or completion that is
    empty or no text.
    """
    names = [task["prompt_column"], task["completion_column"]]
    require_columns(table, names, path)
    if table.empty:
        raise InputError(f"{path} has no rows")
    references: dict[str, dict[str, None]] = {}  # a dict for each prompt's: it keeps their order and has each once
    for line, prompt, completion in table[names].itertuples(name=None):
        completions = completion if isinstance(completion, list) else [completion]
        for column, texts in zip(names, ([prompt], completions), strict=True):
            if not all(isinstance(text, str) for text in texts):
                kind = "a text" if column == names[0] else "a text or a list of texts"
                raise InputError(f"{path}: line {line}: '{column}' should be {kind}")
            if not texts or not all(text.strip() for text in texts):
                raise InputError(f"{path}: line {line} has an empty '{column}'")
        references.setdefault(prompt, {}).update(dict.fromkeys(completions))
    return pd.DataFrame({"prompt": list(references), "references": [list(texts) for texts in references.values()]})
