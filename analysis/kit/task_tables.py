"""Tables of language models: rows are methods with their settings, columns the metrics of tasks, the paper's beside."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.kit import naming, tables
from analysis.kit.compare import REFERENCES, minus_texts, reference, with_differences
from analysis.kit.method_tables import TASK
from analysis.kit.tuning import CELL

ABOUT = {
    "trainable_params": "max", "lr": "first", "main": "first", "train_seconds": "mean", "tokens_per_second": "mean",
    "peak_memory_bytes": "mean",
}  # fmt: skip


def tabulate(scores: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """A row for each of CELL and `more`: mean, interval and n of `kit.tables.summarise`, ABOUT, and for each of
    REFERENCES the fields <reference>_<field> of `maths.statistics.against`.

    Comparisons, and Holm's correction of their p, are among the methods with one model, task, metric and `more`.
    """
    keys = [*CELL, *more]
    table = tables.summarise(scores, keys).merge(scores.groupby(keys).agg(ABOUT), on=keys)
    return with_differences(table, scores, [*TASK, *more])


def looked_up(
    cells: pd.DataFrame, texts: Sequence[str | None], rows: pd.DataFrame, keys: Sequence[str]
) -> list[str | None]:
    """Of `texts`, one a row of cells, that of each of `rows`, found by `keys`; None where there is none."""
    known = dict(zip(cells[list(keys)].itertuples(index=False, name=None), texts, strict=True))
    return [known.get(key) for key in rows[list(keys)].itertuples(index=False, name=None)]


def minus_columns(cells: pd.DataFrame) -> dict[str, list[str | None]]:
    """A column of `minus` for each of REFERENCES that is among the cells; its head says which of several it is."""
    bases = [base for name in REFERENCES if (base := reference(cells, name))]
    several = cells["label"].value_counts()
    return {
        f"minus {naming.title(name, settings if several[name] > 1 else '')}": minus_texts(cells, name)
        for name, settings in bases
    }


def names(cells: pd.DataFrame) -> dict[str, Any]:
    """The first columns of a table: method, settings, parameters."""
    return {
        "method": cells["label"],
        "settings": cells["settings"].where(cells["settings"] != ""),
        "parameters": cells["trainable_params"].map("{:,}".format),
    }


def beside(cells: pd.DataFrame, rows: pd.DataFrame) -> list[str | None]:
    """The paper's number for each of our methods, None where it has none. rows has the columns method and text.

    Where the paper has as many sizes of a method as we, smallest is beside smallest; else all of them are given.
    """
    texts: dict[int, str | None] = {}
    for label, ours in cells.groupby("label", sort=False):
        theirs = rows.loc[rows["method"] == label, "text"].tolist()
        ordered = ours.sort_values("trainable_params", kind="stable").index
        pairwise = len(theirs) == len(ordered)
        texts |= {index: theirs[i] if pairwise else ", ".join(theirs) or None for i, index in enumerate(ordered)}
    return [texts[index] for index in cells.index]
