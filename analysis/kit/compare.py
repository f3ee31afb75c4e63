"""Methods compared with a reference, paired by seed: the columns <reference>_<field> of a table, and their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from analysis.kit import metrics
from analysis.maths import statistics

METHOD = ["label", "settings"]
REFERENCES = ("full", "lora")
References = Callable[[pd.DataFrame], Mapping[str, tuple[str, str]]]


def reference(cells: pd.DataFrame, label: str) -> tuple[str, str] | None:
    """Label and settings of the row that others are compared with: of several of one label the one with most seeds,
    and of these the smallest. None if there is none, or none that has not collapsed."""
    found = cells[(cells["label"] == label) & (cells["n"] > 0)].sort_values("n", ascending=False, kind="stable")
    return None if found.empty else (label, str(found["settings"].iloc[0]))


def full_and_lora(cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Those of REFERENCES that are among the cells: label and settings by name."""
    return {name: base for name in REFERENCES if (base := reference(cells, name))}


def with_differences(
    table: pd.DataFrame, scores: pd.DataFrame, within: Sequence[str], references: References = full_and_lora
) -> pd.DataFrame:
    """table, a row for each of `within` and METHOD, with the fields <reference>_<field> of `maths.statistics.against`
    for each of `references`, which gives names and methods of a group's cells.

    Comparisons, and Holm's correction of their p, are among the methods of one group of `within`.
    """
    within = list(within)
    parts: dict[str, list[pd.DataFrame]] = {}
    for key, runs in scores.groupby(within, sort=False):
        for name, base in references(table[(table[within] == list(key)).all(axis=1)]).items():
            differences = statistics.against(runs, METHOD, base)
            parts.setdefault(name, []).append(pd.DataFrame([key] * len(differences), columns=within).join(differences))
    for name, found in parts.items():
        columns = pd.concat(found).set_index([*within, *METHOD]).add_prefix(f"{name}_").reset_index()
        table = table.merge(columns, on=[*within, *METHOD], how="left")
    return table


def minus_texts(cells: pd.DataFrame, name: str) -> list[str | None]:
    """The difference to the reference `name` for each row, as text, in its metric's unit; None where there is no
    comparison."""
    if f"{name}_pairs" not in cells:
        return [None] * len(cells)
    fields = [f"{name}_{field}" for field in ("difference", "interval", "p_holm", "pairs")]
    rows = cells[[*fields, "n"]].itertuples(index=False, name=None)
    return [
        statistics.paired_text(minus, interval, p, pairs, n, scale, digits)
        for (minus, interval, p, pairs, n), (scale, digits) in zip(rows, metrics.units(cells), strict=True)
    ]
