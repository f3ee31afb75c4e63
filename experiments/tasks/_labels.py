"""Labels that are one class in different spellings: made one where that is safe, else named in a warning."""

import functools
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from experiments.paths import user_path
from experiments.tasks._reading import read

log = logging.getLogger(__name__)

RULES = 2  # of tasks whose classes `spellings` changes: part of their run_ids. Before, every spelling was a class.
NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?")  # 007 is none: it may be a code
SHOWN = 5  # groups that a warning names


def spellings(labels: Iterable[str]) -> dict[str, str]:
    """What each label is, by what is written: without white space around it; and, where all labels are numbers, those
    of one value (1, 1.0) have the shortest of their spellings."""
    meant = {label: label.strip() for label in labels}
    if all(NUMBER.fullmatch(label) for label in meant.values()):
        same = defaultdict(set)
        for label in meant.values():
            same[Decimal(label)].add(label)
        meant = {written: min(same[Decimal(label)], key=lambda s: (len(s), s)) for written, label in meant.items()}
    return meant


def warn(labels: Mapping[str, int], where: str) -> None:
    """One line, if there is such a thing, on classes that differ by case, white space or the form of a number alone;
    `labels` counts the rows of each class."""
    alike = defaultdict(list)
    for label in labels:
        alike[_folded(label)].append(label)
    groups = [sorted(group) for group in alike.values() if len(group) > 1]
    if groups:
        told = [" and ".join(f"{label!r} ({labels[label]} rows)" for label in group) for group in groups[:SHOWN]]
        more = f"; and {len(groups) - SHOWN} more such" if len(groups) > SHOWN else ""
        _say(
            f"{where}: classes that differ by case, spaces or number format alone: {'; '.join(told)}{more}. They are "
            "kept apart: write them alike if they are one"
        )


@functools.cache  # once a process: every run of a sweep reads the data
def _say(message: str) -> None:
    log.warning(message)


def _folded(label: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return str(Decimal(text).normalize()) if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?", text) else text


def defining(task: Mapping[str, Any]) -> dict[str, int]:
    """What the rules of this module add to the definition of a run on the user's own labels: nothing where they change
    no example's class, so that a run that was stored before there were rules is still the one that is meant.

    Raises InputError if the file cannot be read.
    """
    fields = {**task, **(task.get("of") or {})}
    if fields.get("family") != "local" or task.get("path") is None:
        return {}
    path = user_path(task["path"])
    status = path.stat()
    columns = (fields.get("text_column"), fields.get("label_column"))
    changed = _changes(path, fields.get("encoding"), columns, status.st_size, status.st_mtime_ns)
    return {"label_rules": RULES} if changed else {}


@functools.cache  # a sweep asks for every run
def _changes(path: Path, encoding: str | None, columns: tuple[str, str], size: int, changed: int) -> bool:
    table = read(path, encoding)
    if not set(columns) <= set(table.columns):
        return False  # prompts with completions, or a mistake that loading names
    labels = Counter(table[columns[1]].astype(str))
    meant = spellings(labels)
    before, after = sorted(labels), sorted(set(meant.values()))
    return any(before.index(label) != after.index(meant[label]) for label in before)
