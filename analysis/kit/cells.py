"""Means of cells as tables: a column a value (wide), the paper's rows below ours, and the text of a mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

from analysis.kit.data import Data
from analysis.kit.tables import summarise
from analysis.maths.statistics import mean_text

PARTS = {"mean": "{}", "interval": "{}_interval", "n": "{}_n"}


def means(data: Data) -> pd.DataFrame:
    """Mean, interval and n of each cell of the study: of `tables.summarise`."""
    return summarise(data.scores, data.study.cell)


def each(
    rows: pd.DataFrame, by: Sequence[str], values: Callable[[pd.DataFrame], Mapping[str, Any] | None]
) -> pd.DataFrame:
    """A row for each group of `by`, in order of appearance: the group, and what `values` makes of its rows; none where
    that is None."""
    groups = ((dict(zip(by, key, strict=True)), values(own)) for key, own in rows.groupby(list(by), sort=False))
    return pd.DataFrame([{**key, **found} for key, found in groups if found is not None])


def paper(name: str) -> pd.DataFrame:
    """A table of the paper as it is printed, analysis/paper/<name>.csv."""
    return pd.read_csv(str(files("analysis").joinpath(f"paper/{name}.csv")))


def beside_paper(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Our rows, then the paper's, told apart by `source`."""
    return pd.concat([ours.assign(source="ours"), theirs.assign(source="paper")], ignore_index=True)


def wide(long: pd.DataFrame, rows: Sequence[str], column: str) -> pd.DataFrame:
    """A row for each of `rows`, and for each value v of `column` three: <column>v, its mean, <column>v_interval and
    <column>v_n. long has mean, interval and n; missing cells are empty."""
    found = long.set_index([*rows, column])[list(PARTS)].unstack(column)
    order = long[list(rows)].drop_duplicates()
    found = found.reindex(pd.MultiIndex.from_frame(order) if len(rows) > 1 else pd.Index(order[rows[0]]))
    values = sorted(long[column].unique())
    columns = {text.format(f"{column}{v}"): found[part, v] for v in values for part, text in PARTS.items()}
    return pd.DataFrame(columns).convert_dtypes().reset_index()


def wide_texts(table: pd.DataFrame, column: str) -> dict[str, list[str | None]]:
    """The cells of `wide` as text, by their head: `r = 8`."""
    names = [str(name).removeprefix(column) for name in table]
    values = [name for name in names if name.isdigit()]
    parts = {v: [table[text.format(f"{column}{v}")] for text in PARTS.values()] for v in values}
    return {f"{column} = {v}": [_text(*part) for part in zip(*parts[v], strict=True)] for v in values}


def _text(mean: float, interval: float, n: float) -> str | None:
    return None if pd.isna(mean) else mean_text(mean, interval, n)


def mean_texts(rows: pd.DataFrame, scale: float = 100, digits: int = 1) -> list[str]:
    """Mean ± half-width of its interval (seeds) of each row, in percent unless there is another scale."""
    found = rows[["mean", "interval", "n"]].itertuples(index=False, name=None)
    return [mean_text(mean, interval, n, scale, digits) for mean, interval, n in found]
