"""Which differences are established: better, worse, or not told apart; their names, and what few seeds can bear."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
from scipy.special import stdtrit

LEVEL = 0.05  # of p, corrected by Holm's method
ONE_SEED = """\
One seed a method: there is no interval and no test. Whether any of the differences would come again cannot be said."""
FEW_SEEDS = """\
What {seeds} seeds can bear: before p is below 0.05, a difference to the reference must be {alone:.1f} times its
standard error if it is the only one, and {corrected:.1f} times if it is the clearest of {comparisons}. Only large and
steady differences pass; "not told apart" does not say that two methods are equal. Seeds vary the start and the order of
training alone: how scores would move with other test inputs is in no interval here."""


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


def caution(n: pd.Series, comparisons: int) -> str:
    """What so many seeds can and cannot bear; n: seeds of each method."""
    seeds = int(n.max())
    if seeds < 2:
        return " ".join(ONE_SEED.split())
    alone, corrected = (float(stdtrit(seeds - 1, 1 - 0.025 / number)) for number in (1, max(comparisons, 1)))
    few = "" if n.min() == n.max() else f" Some methods have {n.min()}, which bear less."
    text = FEW_SEEDS.format(seeds=seeds, alone=alone, corrected=corrected, comparisons=max(comparisons, 1))
    return " ".join(text.split()) + few
