"""Which differences are established: better, worse, or not told apart; and their names in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

LEVEL = 0.05  # of p, corrected by Holm's method


class Told(NamedTuple):
    """The rows of a table of differences by what their tests say; rows without a test are in none."""

    better: pd.DataFrame
    worse: pd.DataFrame
    open: pd.DataFrame

    @property
    def tests(self) -> int:
        """How many were tested."""
        return len(self.better) + len(self.worse) + len(self.open)


def told(rows: pd.DataFrame, prefix: str = "", lower: bool | pd.Series = False) -> Told:
    """rows, with <prefix>difference and <prefix>p_holm, by their tests at LEVEL; lower: whether lower is better, for
    all or a truth value a row."""
    p, difference = rows[f"{prefix}p_holm"], rows[f"{prefix}difference"]
    clear, up = p < LEVEL, (difference > 0) != lower
    return Told(rows[clear & up], rows[clear & ~up], rows[p >= LEVEL])


def listed(names: Iterable[str], between: str = ", ") -> str:
    """Names in a row, or none."""
    return between.join(names) or "none"
