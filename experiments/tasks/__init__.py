"""Tasks: classification, regression and texts to write, each split into train, validation and test.

A task is one YAML in conf/task/ and one file here for its family: a module with `load(task) -> TaskData | TextData`.
The data depend on the task's own fields only, `split_seed` included, never on the seed of a run.
"""

import hashlib
import importlib
import itertools
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import names
from experiments.paths import user_path
from lora.config import InputError

if TYPE_CHECKING:
    from datasets import Dataset


SPLITS = ("train", "validation", "test")
# The fields of a task that name the user's own files and folders: where the data are, not what they are.
PATH_FIELDS = ("path", "validation_path", "test_path", "data_dir")
# Those that say nothing where they are null, so that a run is what it was before there were such fields.
OPTIONAL = ("encoding", "film_shares", "start_from")


@dataclass(frozen=True)
class TaskData:
    """Three splits with columns text, text_pair (pair tasks only) and label: an index into label_names, or a float."""

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    label_names: tuple[str, ...]  # empty for regression
    metric: str  # the main metric, a name in experiments.metrics.label_metrics
    more_metrics: tuple[str, ...] = ()  # reported beside it
    second_test: "Dataset | None" = None  # MNLI's mismatched set, whose texts are of other kinds than those trained on


@dataclass(frozen=True)
class TextData:
    """Pairs of a context and a target text (paper, section 2), for a language model.

    train has the columns prompt and completion, a row a pair. validation and test have prompt and references, a row an
    input with all its references, perhaps group (metrics are reported for each), and what the metrics need beside.
    """

    train: "Dataset"
    validation: "Dataset"
    test: "Dataset"
    metric: str  # the main metric, a name in experiments.metrics.text_metrics
    more_metrics: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()  # classification as text: the completions there are; empty: text is generated


def load(task: Mapping[str, Any]) -> TaskData | TextData:
    """The data of a task config, shuffled and cut to at most train_examples, validation_examples and test_examples.

    The shuffle has the fixed seed `split_seed`: the first n examples of a bigger cut are the smaller cut. None (null)
    means all, and no test examples that a run reads none. Raises InputError for an unknown family, a size below 1 (0
    for test), and whatever the family finds wrong.
    """
    families = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    if task["family"] not in families:
        raise InputError(f"unknown task family '{task['family']}'; there are: {', '.join(families)}")
    sizes = {split: task.get(f"{split}_examples") for split in SPLITS}
    for split, size in sizes.items():
        least = 0 if split == "test" else 1
        if size is not None and size < least:
            raise InputError(f"task.{split}_examples must be {least} or more, or null for all; got {size}")
    data: TaskData | TextData = importlib.import_module(f"{__name__}.{task['family']}").load(task)
    seed = task["split_seed"]
    cut = {split: _first(getattr(data, split), size, seed) for split, size in sizes.items()}
    if isinstance(data, TaskData) and data.second_test is not None:
        cut["second_test"] = _first(data.second_test, sizes["test"], seed)
    return replace(data, more_metrics=tuple(task.get("more_metrics") or ()), **cut)


def test_rows(data: TaskData | TextData) -> Iterator[Mapping[str, Any]]:
    """The items of the test split in their order; after them those of a second test set."""
    second = data.second_test if isinstance(data, TaskData) else None
    return itertools.chain(data.test, second or ())


def _first(dataset: "Dataset", size: int | None, seed: int) -> "Dataset":
    shuffled = dataset.shuffle(seed=seed)
    return shuffled if size is None else shuffled.select(range(min(size, len(shuffled))))


def _no_file(file: Path) -> str:
    near = names.near(str(file), [*names.options("task"), *map(str, file.parent.glob("*"))])
    return f"there is no file or folder {file}, nor a task of that name" + (
        f"; did you mean {' or '.join(near)}?" if near else ""
    )


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if field not in OPTIONAL or value is not None}


def resolve(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task config with what PATH_FIELDS leave open: a name, and the SHA-256 of the user's data as `data_sha256`.

    Without PATH_FIELDS the result says what the data are, wherever they lie; one of OPTIONAL that is null says nothing.
    Tasks without files of the user's come back as they are. Raises InputError for a file or folder that is not there,
    and a file of the user's own that cannot be read.
    """
    own = _said(task)
    if isinstance(own.get("of"), Mapping):
        own["of"] = _said(own["of"])
    paths = [user_path(own[field]) for field in PATH_FIELDS if own.get(field) is not None]
    if not paths:
        return own
    digest = hashlib.sha256()
    for path in paths:
        # Of a folder, the data: GLUE's folders also hold notes and sources, which no task reads.
        files = (
            sorted(f for f in path.iterdir() if f.suffix in (".tsv", ".txt", ".json", ".jsonl", ".db"))
            if path.is_dir()
            else [path]
        )
        for file in files:
            if not file.is_file():
                raise InputError(_no_file(file))
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    from experiments.tasks import _labels  # imports pandas, which tasks without files of the user's do not need

    named = {**own, "name": own["name"] or paths[0].stem, "data_sha256": digest.hexdigest()}
    return named | _labels.defining(own)
