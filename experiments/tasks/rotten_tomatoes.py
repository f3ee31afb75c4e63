"""Rotten Tomatoes: one-sentence film reviews, fresh or rotten; 12.8k reviews of 508 films, split by film."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from experiments.assets import fetch
from experiments.tasks import TaskData
from experiments.tasks._frames import task_data

LABELS = ("rotten", "fresh")
# The corpus has one film under two names.
SAME_FILM = {"el_crimen_del_padre_amaro": "the_crime_of_padre_amaro"}


def reviews() -> pd.DataFrame:
    """Columns text, label, film; the plot summaries and the repeated reviews of the corpus are left out."""
    corpus = pd.read_csv(fetch("rotten_tomatoes") / "rotten_tomatoes_corpus_full.csv.bz2")
    corpus = corpus[corpus["category"].isin(LABELS)].drop_duplicates("text")
    return pd.DataFrame(
        {"text": corpus["text"], "label": corpus["category"], "film": corpus["movie_name"].replace(SAME_FILM)}
    )


def split_by_film(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Train, validation and test with 80, 10 and 10% of the films: no film is in two of them."""
    train, held_out = _split(frame, 0.2, seed)
    return train, *_split(held_out, 0.5, seed)


def _split(frame: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    splitter = GroupShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    rest, cut = next(splitter.split(frame, groups=frame["film"]))
    return frame.iloc[rest], frame.iloc[cut]


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: split_seed, metric."""
    return task_data(*split_by_film(reviews(), task["split_seed"]), LABELS, task["metric"])
