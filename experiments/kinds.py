"""What kind of task a study is of: texts with labels, or prompts with completions. Told from settings and the head of a
file, before anything is loaded."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.paths import user_path
from lora.config import InputError

Kind = Literal["labels", "pairs"]
LABELS = ("bbc_news", "glue", "rotten_tomatoes", "tab_corpus")  # families whose `load` gives a TaskData
WORDS = {"labels": "texts with labels", "pairs": "prompts with completions"}
DELIMITERS = {".csv": ",", ".tsv": "\t"}


def holds_pairs(columns: Collection[str], task: Mapping[str, Any]) -> bool:
    """True if a file with such columns has prompts with completions, and no texts with labels."""
    pairs = {task["prompt_column"], task["completion_column"]}
    return task["text_column"] not in columns and bool(pairs.intersection(columns))


def kind_of(task: Mapping[str, Any]) -> Kind | None:
    """The kind of a task; None where that of the user's own file cannot be told, which its reading says more of."""
    if task["family"] != "local":
        return "labels" if task["family"] in LABELS else "pairs"
    columns = _columns(user_path(task["path"])) if task["path"] is not None else None
    if not columns:
        return None
    return "pairs" if holds_pairs(columns, task) else "labels"


def _columns(path: Path) -> list[str] | None:
    """The columns of a file, of JSONL those of its first row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() in DELIMITERS:
                return next(csv.reader(file, delimiter=DELIMITERS[path.suffix.lower()]), None)
            row = json.loads(next((line for line in file if line.strip()), "null"))
            return list(row) if isinstance(row, dict) else None
    except (OSError, ValueError, csv.Error):
        return None


def check_kind(study: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Raises InputError if a study is of the other kind of task, with the command of the study that fits.

    study: its `name`; `data`, a Kind, if it is of one alone; `other`, the make target of the study of the other kind.
    """
    wanted: Kind | None = study.get("data")
    found = None if wanted is None else kind_of(task)
    if wanted is None or found is None or found == wanted:
        return
    name = task.get("name") or Path(task["path"]).name
    other = study.get("other")
    advice = f"`make {other}` is the study for these" if other else f"no study of {WORDS[found]} answers its question"
    raise InputError(f"task {name} has {WORDS[found]}, and {study['name']} is a study of {WORDS[wanted]}: {advice}")
