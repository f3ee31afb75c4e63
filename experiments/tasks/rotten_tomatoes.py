"""Rotten Tomatoes: one-sentence film reviews, fresh or rotten; 12.8k reviews of 508 films, split by film."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from experiments.assets import fetch
from experiments.tasks import TaskData
from experiments.tasks._frames import task_data
from lora.config import InputError

LABELS = ("rotten", "fresh")
# The corpus has one film under two names.
SAME_FILM = {"el_crimen_del_padre_amaro": "the_crime_of_padre_amaro"}
SHARES = (0.8, 0.1, 0.1)  # of the films, where task.film_shares is null


def reviews() -> pd.DataFrame:
    """Columns text, label, film; the plot summaries and the repeated reviews of the corpus are left out."""
    corpus = pd.read_csv(fetch("rotten_tomatoes") / "rotten_tomatoes_corpus_full.csv.bz2")
    corpus = corpus[corpus["category"].isin(LABELS)].drop_duplicates("text")
    return pd.DataFrame(
        {"text": corpus["text"], "label": corpus["category"], "film": corpus["movie_name"].replace(SAME_FILM)}
    )


def split_by_film(
    frame: pd.DataFrame, seed: int, shares: Sequence[float] = SHARES
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Train, validation and test with these shares of the films, of which no film is in two of them.

    Raises InputError for shares that are not three positive numbers whose sum is 1.
    """
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise InputError(f"task.film_shares = {list(shares)}: give those of train, validation and test, whose sum is 1")
    # Rounded: 1 - 0.8 and 0.1 / 0.2 are to be 0.2 and 0.5.
    train, held_out = _split(frame, round(1 - shares[0], 9), seed)
    return train, *_split(held_out, round(shares[2] / (1 - shares[0]), 9), seed)


def _split(frame: pd.DataFrame, fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    splitter = GroupShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    rest, cut = next(splitter.split(frame, groups=frame["film"]))
    return frame.iloc[rest], frame.iloc[cut]


def load(task: Mapping[str, Any]) -> TaskData:
    """Task fields: split_seed, metric, film_shares (of train, validation and test; null: SHARES)."""
    parts = split_by_film(reviews(), task["split_seed"], task.get("film_shares") or SHARES)
    return task_data(*parts, LABELS, task["metric"])
