"""Comparisons of what runs reach, paired by seed or not, corrected for their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import ttest_1samp, ttest_ind

from analysis.maths import estimates
from analysis.maths.estimates import NO_SPREAD as NO_SPREAD  # for all that compares
from analysis.maths.svd import Array


class Paired(NamedTuple):
    """Mean difference over the n seeds that both have, half-width of its 95% Student-t interval, and p of the paired
    t-test. One pair, or differences that are all the same, give neither interval nor p: NaN."""

    pairs: int
    difference: float
    interval: float
    p: float


NOTHING = Paired(0, np.nan, np.nan, np.nan)


def paired(values: pd.Series, reference: pd.Series) -> Paired:
    """`values` minus `reference`, both by seed, each seed once; seeds that only one of them has do not count."""
    found = estimates.paired(values, reference)
    return Paired(found.n, float(found.value), float(found.half), float(found.p))


class Unpaired(NamedTuple):
    """Difference of two means, half-width of its 95% interval, and p, by Welch's t-test: of values that have nothing
    in common by which they could be paired. NaN where there is no spread to judge by."""

    difference: float
    difference_interval: float
    p: float


NO_TEST = Unpaired(np.nan, np.nan, np.nan)


def unpaired(values: pd.Series, others: pd.Series, exact: bool = False) -> Unpaired:
    """Mean of `values` minus mean of `others`. exact: others are one number that no draw changes, so that one of them
    is all there is to know."""
    ours, theirs = values.to_numpy(dtype=float), others.to_numpy(dtype=float)
    difference = float(ours.mean() - theirs.mean())
    still = np.ptp(ours) < NO_SPREAD
    if len(ours) < 2 or (still and (exact or np.ptp(theirs) < NO_SPREAD)) or (len(theirs) < 2 and not exact):
        return Unpaired(difference, np.nan, np.nan)
    test = ttest_1samp(ours, theirs.mean()) if exact else ttest_ind(ours, theirs, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Unpaired(difference, float(high - low) / 2, float(test.pvalue))


def evenly(rows: pd.DataFrame, by: str, value: str = "value") -> pd.Series:
    """Mean of `value` for each group of `by`, in order of appearance, over the seeds that all groups have.

    Seeds are not equally hard: one that only some groups have would raise or lower these alone. A choice among groups
    is so of no more seeds than the least of them has, but fair. Where all share none, it is over each group's own.
    """
    known = rows[rows[value].notna()]
    seeds = [set(own) for _, own in known.groupby(by, sort=False)["seed"]]
    shared = set.intersection(*seeds) if seeds else set()
    return (known[known["seed"].isin(shared)] if shared else known).groupby(by, sort=False)[value].mean()


def holm(p: ArrayLike) -> Array:
    """p-values corrected for their number by Holm's step-down method (Holm 1979), in the order given; NaN is no test,
    stays NaN and does not count."""
    values = np.asarray(p, dtype=float)
    corrected = np.full_like(values, np.nan)
    tests = np.flatnonzero(~np.isnan(values))
    tests = tests[np.argsort(values[tests], kind="stable")]
    factors = np.arange(len(tests), 0, -1)
    corrected[tests] = np.minimum(np.maximum.accumulate(factors * values[tests]), 1)
    return corrected


def against(runs: pd.DataFrame, by: Sequence[str], reference: Sequence[str]) -> pd.DataFrame:
    """Every other group of `by` minus the group `reference`, paired by seed: `by`, the fields of Paired, and p_holm.

    runs has the columns `by`, seed and value. p_holm is corrected for all comparisons of this call.
    """
    groups = {key: group.set_index("seed")["value"] for key, group in runs.groupby(list(by), sort=False)}
    base = groups.pop(tuple(reference))
    rows = [(*key, *paired(group, base)) for key, group in groups.items()]
    table = pd.DataFrame(rows, columns=[*by, *Paired._fields])
    return table.assign(p_holm=holm(table["p"]))


def mean_text(mean: float, interval: float, n: float, scale: float = 100, digits: int = 1, collapsed: float = 0) -> str:
    """A mean, in percent unless there is another scale, ± the half-width of its interval, (n); what there is not (NaN)
    is left out. collapsed: how many more runs there are, which the mean is not of."""
    if collapsed > 0 and not n:
        return f"all {collapsed:.0f} collapsed"
    text = f"{scale * mean:.{digits}f}"
    text += "" if pd.isna(interval) else f" ± {scale * interval:.{digits}f}"
    more = f"; {collapsed:.0f} collapsed" if collapsed > 0 else ""
    return text if pd.isna(n) else f"{text} ({n:.0f}{more})"


def difference_text(difference: float, interval: float, p: float, scale: float = 100, digits: int = 1) -> str:
    """A difference, in points unless there is another scale, ± the half-width of its interval, and p, starred below
    0.05; alone where p is NaN."""
    text = f"{scale * difference:+.{digits}f}"
    if pd.isna(p):
        return text
    shown = "< 0.001" if p < 0.001 else f"{p:.3f}"
    return f"{text} ± {scale * interval:.{digits}f}, p {shown}{' *' if p < 0.05 else ''}"


def paired_text(
    difference: float, interval: float, p: float, pairs: float, usual: float, scale: float = 100, digits: int = 1
) -> str | None:
    """`difference_text`, with the number of pairs where it is not the usual one; None (NaN pairs): nothing compared."""
    if pd.isna(pairs):
        return None
    if not pairs:
        return "no seed in common"
    text = difference_text(difference, interval, p, scale, digits)
    return text if pairs == usual else f"{text} ({pairs_text(pairs)})"


def pairs_text(pairs: float) -> str:
    """Number of pairs."""
    return f"{pairs:.0f} pair" if pairs == 1 else f"{pairs:.0f} pairs"
