"""Text corpora with official train and test parts, in Orange's tab format: 20 Newsgroups, Reuters R8 and R52."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.assets import ASSETS, fetch
from experiments.tasks import TaskData
from experiments.tasks._frames import split, task_data
from experiments.tasks._reading import read_table
from lora.config import InputError


def read_tab(path: Path) -> pd.DataFrame:
    """Columns text and label. The three header lines are the names, types and roles of the columns."""
    frame = read_table(path, "\t", skiprows=[1, 2]).rename(columns={"Category": "label", "Text": "text"})
    return frame[(frame["text"].str.strip() != "") & (frame["label"].str.strip() != "")]


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: corpus (20newsgroups, reuters-r8, reuters-r52), split_seed, metric.

    Validation is 10% of the official training part, stratified. Raises InputError for an unknown corpus.
    """
    corpora = sorted({member.rsplit("-", 1)[0] for member in ASSETS["orange_text"].members})
    if task["corpus"] not in corpora:
        raise InputError(f"unknown task.corpus '{task['corpus']}'; there are: {', '.join(corpora)}")
    folder = fetch("orange_text")
    official = read_tab(folder / f"{task['corpus']}-train.tab")
    test = read_tab(folder / f"{task['corpus']}-test.tab")
    train, validation = split(official, 0.1, task["split_seed"])
    return task_data(train, validation, test, tuple(sorted(official["label"].unique())), task["metric"])
