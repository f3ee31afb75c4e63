"""Methods compared with a reference, paired by seed: the columns <reference>_<field> of a table, and their texts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.maths import statistics

METHOD = ["label", "settings"]
REFERENCES = ("full", "lora")


def reference(cells: pd.DataFrame, label: str) -> tuple[str, str] | None:
    """Label and settings of the row that others are compared with: of several of one label the one with most seeds,
    and of these the smallest. None if there is none."""
    found = cells[cells["label"] == label].sort_values("n", ascending=False, kind="stable")
    return None if found.empty else (label, str(found["settings"].iloc[0]))


def with_differences(table: pd.DataFrame, scores: pd.DataFrame, within: Sequence[str]) -> pd.DataFrame:
    """table, a row for each of `within` and METHOD, with the fields <reference>_<field> of `maths.statistics.against`
    for each of REFERENCES.

    Comparisons, and Holm's correction of their p, are among the methods of one group of `within`.
    """
    within = list(within)
    for name in REFERENCES:
        parts = []
        for key, runs in scores.groupby(within, sort=False):
            base = reference(table[(table[within] == list(key)).all(axis=1)], name)
            if base:
                found = statistics.against(runs, METHOD, base)
                parts.append(pd.DataFrame([key] * len(found), columns=within).join(found))
        if parts:
            found = pd.concat(parts).set_index([*within, *METHOD]).add_prefix(f"{name}_").reset_index()
            table = table.merge(found, on=[*within, *METHOD], how="left")
    return table


def minus_texts(cells: pd.DataFrame, name: str, scale: float = 100, digits: int = 1) -> list[str | None]:
    """The difference to the reference `name` for each row, as text, in points unless there is another scale; None where
    there is no comparison."""
    if f"{name}_pairs" not in cells:
        return [None] * len(cells)
    fields = [f"{name}_{field}" for field in ("difference", "interval", "p_holm", "pairs")]
    rows = cells[[*fields, "n"]].itertuples(index=False, name=None)
    return [statistics.paired_text(found, wide, p, pairs, n, scale, digits) for found, wide, p, pairs, n in rows]
