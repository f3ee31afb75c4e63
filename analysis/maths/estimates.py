"""Estimates with their errors: of paired runs, of test items, and their means over cases.

Everything is Student's t on an estimate with a standard error and its degrees of freedom. Those of a mean over cases
are Welch and Satterthwaite's, so that neither equal variances nor equal numbers of runs are needed. Where a value is
asked for, an array of values does as well, and gives arrays: many studies are judged at once.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import fdtrc, stdtr, stdtrit
from scipy.stats import bartlett

from analysis.maths.svd import Array

LEVEL = 0.05
NO_SPREAD = 1e-12  # differences that spread less are equal but for rounding
SAME_SPREAD = 0.2  # p of Bartlett's test below which spreads are not pooled: with few seeds it sees little


class Estimate(NamedTuple):
    """A value, its standard error and the degrees of freedom of that (NaN: nothing tells them), over n replicates.

    item_error is the part of the standard error that more replicates do not make smaller: that of the test items, 0
    where it is not known.
    """

    value: float
    error: float
    freedom: float
    n: int
    item_error: float = 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval; NaN, NaN without an error."""
        return self.value - self.half, self.value + self.half

    @property
    def half(self) -> Any:
        """Half the width of its 95% interval."""
        return self.error * stdtrit(self.freedom, 1 - LEVEL / 2)

    @property
    def p(self) -> Any:
        """Of no difference, two-sided: below 0.05 where 0 is not in the interval."""
        return 2 * stdtr(self.freedom, -np.abs(np.divide(self.value, self.error)))


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


class Residual(NamedTuple):
    """The standard deviation of one run about its setting and its seed, and its degrees of freedom (0: not pooled)."""

    deviation: float
    freedom: float


NOT_POOLED = Residual(math.nan, 0)


def residual(values: ArrayLike, settings: ArrayLike, seeds: ArrayLike, apart: Collection[int] = ()) -> Residual:
    """What is left of runs' scores (…, runs) after an effect of the setting and one of the seed, pooled by least
    squares over the settings of a study but those `apart`, which are compared: `mean` weighs their own scatter. The
    seed's effect is what paired differences take out.

    settings, seeds (runs,): a code a run. NOT_POOLED if Bartlett's test says that settings scatter differently (p below
    SAME_SPREAD), those apart among them, or if there are less than two others with two seeds.
    """
    setting, seed, y = np.asarray(settings), np.asarray(seeds), np.asarray(values, dtype=float)
    names, counts = np.unique(setting, return_counts=True)
    others = ~np.isin(names, list(apart))
    if ((counts > 1) & others).sum() < 2:
        return NOT_POOLED
    kept = np.isin(setting, names[counts > 1])
    left, _ = _about(y[..., kept], setting[kept], seed[kept])
    parts = [left[..., setting[kept] == name] for name in names[counts > 1]]
    size = np.maximum(np.abs(y).max(axis=-1), NO_SPREAD)
    flat = np.min([np.ptp(part, axis=-1) for part in parts], axis=0) < NO_SPREAD * size
    with np.errstate(divide="ignore", invalid="ignore"):
        alike: Any = (np.asarray(bartlett(*parts, axis=-1).pvalue) >= SAME_SPREAD) & ~flat
    kept = np.isin(setting, names[(counts > 1) & others])
    left, freedom = _about(y[..., kept], setting[kept], seed[kept])
    if freedom < 1:
        return NOT_POOLED
    deviation: Any = np.where(alike, np.sqrt((left**2).sum(axis=-1) / freedom), np.nan)
    known: Any = np.where(alike, freedom, 0)
    return Residual(deviation[()], known[()])


def _about(y: Array, setting: Array, seed: Array) -> tuple[Array, int]:
    """What is left of y (…, runs) after the effects of setting and seed, and its degrees of freedom."""
    design = np.hstack([(column[:, None] == np.unique(column)).astype(float) for column in (setting, seed)])
    return y - y @ (design @ np.linalg.pinv(design)), len(setting) - int(np.linalg.matrix_rank(design))


def mean(values: ArrayLike, pooled: Residual = NOT_POOLED, runs: float = 1) -> Estimate:
    """The mean of replicates (…, n): differences of the same seed, or whatever a replicate is.

    pooled: of one run of the study's other settings; runs: the variance of one replicate in units of that of a run (2
    for a difference of two runs). It counts, with its degrees of freedom, where the replicates scatter no more than it
    says (F at its median or below); where they do, two or three seeds cannot tell chance from a setting that scatters
    more, and they have their own scatter and its few degrees of freedom. One replicate has no error.
    """
    x = np.asarray(values, dtype=float)
    n, value = x.shape[-1], x.mean(axis=-1)
    if n < 2:
        return Estimate(value[()], math.nan, math.nan, n)
    own = x.var(axis=-1, ddof=1)
    expected = runs * np.square(pooled.deviation)
    freedom = np.asarray(pooled.freedom, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        quiet = (freedom > n - 1) & (fdtrc(n - 1, freedom, own / expected) >= 0.5)
    variance: Any = np.where(quiet, np.fmax(own, expected), own)
    known = variance > NO_SPREAD**2
    error: Any = np.where(known, np.sqrt(variance / n), np.nan)
    of_error: Any = np.where(known, np.where(quiet, freedom, n - 1.0), np.nan)
    return Estimate(value[()], error[()], of_error[()], n)


def paired(
    ours: pd.Series, theirs: pd.Series, pooled: Residual = NOT_POOLED, runs: float = 2, items: Array | None = None
) -> Estimate:
    """Ours minus theirs, scores by seed, over the seeds that both have: the comparison of tables and scoreboard alike.

    pooled, runs: as of `mean`; items (seeds, items): the differences by test item, where all of these runs have kept
    them, so that the error is that of `two_way`. NOTHING if no seed is shared.
    """
    shared = ours.dropna().index.intersection(theirs.dropna().index)
    if shared.empty:
        return NOTHING
    if items is not None:
        return two_way(items, pooled)
    return mean(ours[shared].to_numpy(dtype=float) - theirs[shared].to_numpy(dtype=float), pooled, runs)


def two_way(differences: Array, pooled: Residual = NOT_POOLED) -> Estimate:
    """The mean of differences (seeds, items), paired by both, with an error for other seeds and for other items.

    With random effects of seeds and of items the mean's variance is that of the seeds' means, plus that of the items'
    means, less what both hold: (MS_seeds + MS_items - MS_rest) / (seeds items), the two-way analysis of variance, which
    is also the cluster-robust variance in two ways (Cameron, Gelbach and Miller 2011). It is never less than either of
    the two. Degrees of freedom are Satterthwaite's. `pooled` stands in for the seeds as in `mean`.
    """
    seeds, items = differences.shape
    by_seed, by_item = differences.mean(axis=1), differences.mean(axis=0)
    over_seeds = mean(by_seed, pooled, runs=2)
    if not over_seeds.error > 0 or items < 2:
        return over_seeds
    rest = differences - by_seed[:, None] - by_item + differences.mean()
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    of_items = float(by_item.var(ddof=1)) / items
    seed_part, item_part = over_seeds.error**2, max(of_items - of_rest, 0.0)
    variance = max(seed_part + item_part, of_items)
    freedom = variance**2 / (seed_part**2 / over_seeds.freedom + item_part**2 / (items - 1))
    return Estimate(over_seeds.value, math.sqrt(variance), freedom, seeds, math.sqrt(item_part))


def average(estimates: Sequence[Estimate], tied: Array | None = None) -> Estimate:
    """The mean of estimates, each with the same weight. tied (n, n): true where two are not independent; such errors
    are added as if one moved the other in full, which is the most that they can do.

    n is the smallest of the estimates'. The degrees of freedom are Satterthwaite's; with ties those of the least.
    """
    count = len(estimates)
    alone = np.eye(count, dtype=bool)
    together = alone if tied is None else np.asarray(tied, dtype=bool) | alone
    value, error, freedom, items = (
        np.stack([np.asarray(getattr(estimate, name), dtype=float) for estimate in estimates])
        for name in ("value", "error", "freedom", "item_error")
    )
    variance, of_items = (np.einsum("i...,ij,j...->...", part, together, part) / count**2 for part in (error, items))
    if (together == alone).all():
        freedom = variance**2 / ((error / count) ** 4 / freedom).sum(axis=0)
    else:
        freedom = freedom.min(axis=0)
    n = min(estimate.n for estimate in estimates)
    return Estimate(value.mean(axis=0)[()], np.sqrt(variance)[()], freedom[()], n, np.sqrt(of_items)[()])


def difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """One estimate minus another that nothing pairs with it, with Welch's degrees of freedom."""
    variances = ours.error**2, theirs.error**2
    variance = sum(variances)
    parts = variances[0] ** 2 / ours.freedom + variances[1] ** 2 / theirs.freedom
    freedom = variance**2 / parts if parts > 0 else math.nan
    return Estimate(ours.value - theirs.value, math.sqrt(variance), freedom, min(ours.n, theirs.n))


class Heterogeneity(NamedTuple):
    """How much estimates differ beyond their errors: I^2, the share of their scatter that errors do not explain, and
    tau, the standard deviation of what they are estimates of (DerSimonian and Laird 1986)."""

    i_squared: float
    tau: float


ALONE = Heterogeneity(math.nan, math.nan)


def heterogeneity(estimates: Sequence[Estimate]) -> Heterogeneity:
    """Of two or more estimates; ALONE of fewer."""
    if len(estimates) < 2:
        return ALONE
    values, errors = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "error"))
    weights = errors**-2.0
    center = (weights * values).sum() / weights.sum()
    q, free = float((weights * (values - center) ** 2).sum()), len(estimates) - 1
    scale = float(weights.sum() - (weights**2).sum() / weights.sum())
    return Heterogeneity(max(0.0, (q - free) / q) if q > 0 else 0.0, math.sqrt(max(0.0, q - free) / scale))
