"""Means of cells as tables: a column a value, the paper's rows below ours, and the text of a mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

from analysis.kit import metrics
from analysis.kit.data import Data
from analysis.kit.tables import summarise
from analysis.maths.statistics import mean_text

Texts = Callable[[pd.DataFrame], Sequence[str | None]]  # one a row
PARTS = {"mean": "{}", "interval": "{}_interval", "n": "{}_n", "collapsed": "{}_collapsed"}


def means(data: Data) -> pd.DataFrame:
    """Mean, interval, n and collapsed of each cell of the study: of `summary`."""
    return summary(data.scores, data.study.cell)


def summary(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean, interval and n of `tables.summarise`, and `collapsed`, how many more runs a group has: they have no
    value."""
    sizes = scores.groupby(list(by), sort=False, dropna=False).size()
    found = summarise(scores, by)
    return found.assign(collapsed=sizes.to_numpy() - found["n"])


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
    """A row for each of `rows`, and for each value v of `column` four: <column>v, its mean, <column>v_interval, and so
    on as PARTS, which long has; missing cells are empty."""
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


def _text(mean: float, interval: float, n: float, collapsed: float) -> str | None:
    lost = 0 if pd.isna(collapsed) else collapsed
    return None if pd.isna(mean) and not lost else mean_text(mean, interval, n, collapsed=lost)


def mean_texts(rows: pd.DataFrame) -> list[str]:
    """Mean ± half-width of its interval (seeds) of each row, in its metric's unit; in percent where there is none."""
    found = rows.reindex(columns=list(PARTS)).itertuples(index=False, name=None)
    return [
        mean_text(mean, interval, n, scale, digits, collapsed)
        for (mean, interval, n, collapsed), (scale, digits) in zip(found, metrics.units(rows), strict=True)
    ]


def looked_up(
    cells: pd.DataFrame, texts: Sequence[str | None], rows: pd.DataFrame, keys: Sequence[str]
) -> list[str | None]:
    """Of `texts`, one a row of cells, that of each of `rows`, found by `keys`; None where there is none."""
    known = dict(zip(cells[list(keys)].itertuples(index=False, name=None), texts, strict=True))
    return [known.get(key) for key in rows[list(keys)].itertuples(index=False, name=None)]


def across(
    rows: pd.DataFrame,
    cells: pd.DataFrame,
    by: str | list[str],
    keys: Sequence[str],
    texts: Texts = mean_texts,
    head: str | Callable[[Any], str] = "{}",
) -> dict[str, list[str | None]]:
    """A column of text for each value of `by` in cells, in their order: for each of `rows` that of its cell, found by
    `keys`. texts: gives those of cells; head: of a column, from the value."""
    named = head.format if isinstance(head, str) else head
    groups = cells.groupby(by, sort=False)
    return {named(value): looked_up(found, texts(found), rows, keys) for value, found in groups}
