"""GLUE: nine tasks of one or two sentences (Wang et al. 2018, arXiv:1804.07461), the paper's Table 2.

GLUE's test labels are not public, so its dev set is our test set, read once when a run ends, as the paper reports it.
What is watched while training, and what chooses a learning rate, is a validation set cut from the training set.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.tasks import TaskData
from experiments.tasks._frames import dataset, require_classes, require_columns, split, task_data
from experiments.tasks._official import folder, from_hub
from experiments.tasks._reading import read_table
from lora.config import InputError

log = logging.getLogger(__name__)

HUB = "nyu-mll/glue"
LARGEST_VALIDATION = 5000  # a standard error of 0.4% at 90% accuracy; a tenth of MNLI would be 39,000


@dataclass(frozen=True)
class Subset:
    """Where a GLUE task keeps its sentences and labels, in the TSV files and on the hub."""

    sentences: tuple[str, ...]  # one column, or two, of the TSV files
    label: str  # column of the TSV files
    names: tuple[str, ...]  # of the classes, in the hub's order; the TSV files have these or 0, 1; none for a score
    hub_sentences: tuple[str, ...] = ()  # where the hub has other names
    header: tuple[str, ...] | None = None  # the columns of files that have no header line
    train: tuple[str, ...] = ("train.tsv",)  # the first that is in the folder
    dev: tuple[str, ...] = ("dev.tsv",)
    hub_dev: str = "validation"
    second_dev: str | None = None  # a second dev set's TSV file, if there is one
    hub_second_dev: str | None = None


_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
SUBSETS = {
    "cola": Subset(
        ("sentence",), "label", ("unacceptable", "acceptable"), header=("source", "label", "star", "sentence")
    ),
    "sst2": Subset(("sentence",), "label", ("negative", "positive")),
    # Microsoft's own release of MRPC has a train and a test file; its test part, which has labels, stands in for dev.
    "mrpc": Subset(
        ("#1 String", "#2 String"),
        "Quality",
        ("not_equivalent", "equivalent"),
        hub_sentences=_PAIR,
        train=("train.tsv", "msr_paraphrase_train.txt"),
        dev=("dev.tsv", "msr_paraphrase_test.txt"),
    ),
    "stsb": Subset(_PAIR, "score", ()),
    "qqp": Subset(("question1", "question2"), "is_duplicate", ("not_duplicate", "duplicate")),
    "mnli": Subset(
        _PAIR,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        hub_sentences=("premise", "hypothesis"),
        dev=("dev_matched.tsv", "dev.tsv"),
        hub_dev="validation_matched",
        second_dev="dev_mismatched.tsv",
        hub_second_dev="validation_mismatched",
    ),
    "qnli": Subset(("question", "sentence"), "label", _ENTAILMENT),
    "rte": Subset(_PAIR, "label", _ENTAILMENT),
    "wnli": Subset(_PAIR, "label", ("not_entailment", "entailment")),
}


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: subset (a key of SUBSETS), data_dir (a folder of GLUE TSV files; null: the hub), split_seed, metric.

    Validation is 10% of the training set, at most 5,000 examples. MNLI has a second test set, its mismatched one; where
    a folder lacks it, that is said. Raises InputError for an unknown subset, a folder or
    file that is missing or not in GLUE's format, and where the hub cannot be reached.
    """
    if task["subset"] not in SUBSETS:
        raise InputError(f"unknown GLUE task '{task['subset']}'; there are: {', '.join(SUBSETS)}")
    subset = SUBSETS[task["subset"]]
    if task["data_dir"] is None:
        official, dev, second = _from_hub(task["subset"], subset)
    else:
        official, dev, second = _from_folder(folder(task["data_dir"]), subset)
    held_out = min(len(official) // 10, LARGEST_VALIDATION)
    train, validation = split(official, held_out, task["split_seed"], stratified=bool(subset.names))
    data = task_data(train, validation, dev, subset.names, task["metric"])
    return data if second is None else replace(data, second_test=dataset(second, subset.names))


Parts = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]  # train, dev, and a second dev set


def _from_hub(name: str, subset: Subset) -> Parts:
    data = from_hub(HUB, "GLUE's TSV files", name)

    def frame(part: str) -> pd.DataFrame:
        columns = data[part].to_pandas()
        labels = columns["label"].map(dict(enumerate(subset.names))) if subset.names else columns["label"]
        return _named(columns, subset.hub_sentences or subset.sentences).assign(label=labels)

    second = subset.hub_second_dev
    return frame("train"), frame(subset.hub_dev), None if second is None else frame(second)


def _from_folder(place: Path, subset: Subset) -> Parts:
    train, dev = (_first_of(place, names) for names in (subset.train, subset.dev))
    official = _read_tsv(train, subset)
    require_classes(official, train)
    second = None if subset.second_dev is None else place / subset.second_dev
    if second is not None and not second.is_file():
        log.warning("%s is not there: scores are of %s alone", second, dev.name)
        second = None
    return official, _read_tsv(dev, subset), None if second is None else _read_tsv(second, subset)


def _first_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"task.data_dir: there is no {' or '.join(names)} in {folder}")


def _read_tsv(path: Path, subset: Subset) -> pd.DataFrame:
    """Columns text, [text_pair], label: the name of the class, or a float."""
    # GLUE's files are unquoted: a quotation mark is text, and often stands alone.
    table = read_table(path, "\t", header=None if subset.header else 0, names=subset.header)
    require_columns(table, [*subset.sentences, subset.label], path)
    frame = _named(table, subset.sentences).assign(label=table[subset.label])
    whole = (frame != "").all(axis=1)
    if not whole.all():  # GLUE's QQP has some lines that are cut short
        log.warning("%s: %d of %d rows left out: a sentence or the label is missing", path, (~whole).sum(), len(frame))
    frame = frame[whole]
    if subset.names:
        labels = frame["label"].replace({str(i): name for i, name in enumerate(subset.names)})
        bad = frame["label"][~labels.isin(subset.names)]
    else:
        labels = pd.to_numeric(frame["label"], errors="coerce")
        bad = frame["label"][labels.isna()]
    if len(bad):
        expected = ", ".join(subset.names) or "a number"
        raise InputError(f"{path}: the label '{bad.iloc[0]}' of row {bad.index[0] + 1} should be {expected}")
    return frame.assign(label=labels)


def _named(table: pd.DataFrame, sentences: tuple[str, ...]) -> pd.DataFrame:
    return table[list(sentences)].set_axis(["text", "text_pair"][: len(sentences)], axis=1)
