"""BBC News: 2,225 articles of 2004 and 2005 in five classes; the headline first."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from experiments.assets import ASSETS, fetch
from experiments.tasks import TaskData
from experiments.tasks._frames import task_data, tenths

LABELS = ASSETS["bbc_news"].members  # one folder a class


def articles() -> pd.DataFrame:
    """Columns text, as it is in the file, and label: all articles, repeated ones included."""
    folder = fetch("bbc_news")
    return pd.DataFrame(
        [
            # One article has a pound sign that is not UTF-8.
            (file.read_text(encoding="utf-8", errors="replace"), label)
            for label in LABELS
            for file in sorted((folder / label).glob("*.txt"))
        ],
        columns=["text", "label"],
    )


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: split_seed, metric. Train, validation and test are 80, 10 and 10%, stratified.

    A hundred articles are in the corpus twice; they are kept once, so that no text is in two splits.
    """
    frame = articles()
    frame = frame.assign(text=[" ".join(text.split()) for text in frame["text"]]).drop_duplicates("text")
    return task_data(*tenths(frame, task["split_seed"]), LABELS, task["metric"])
