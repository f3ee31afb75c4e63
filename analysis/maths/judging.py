"""What decides a claim: tests of an estimate against thresholds, and their power."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import nct

from analysis.maths.estimates import LEVEL, Estimate

POWER = 0.8
MOST_RUNS = 1000  # seeds above which no number is given: it is not seeds that are missing


class Told(NamedTuple):
    """p-values of what can be concluded, two-sided: each is below 0.05 exactly where a 95% interval is on that side.

    inside: the value is in [low, high]; outside: it is not; equal: it is within the margin of the threshold.
    """

    inside: float
    outside: float
    equal: float

    @property
    def least(self) -> float:
        """The smallest; NaN of none."""
        known = [p for p in self if not math.isnan(p)]
        return min(known, default=math.nan)

    def corrected(self, factor: float, floor: float) -> "Told":
        """Times a factor, and no smaller than `floor`."""
        return Told(*(np.minimum(np.maximum(np.multiply(p, factor), floor), 1.0)[()] for p in self))

    def concluded(self, level: float = LEVEL) -> Any:
        """Which is concluded: 0 none, 1 inside, 2 outside, 3 equal, in this order: a side that is told is told, however
        near it is."""
        below = [np.less(p, level) for p in self]
        return np.select(below, [1, 2, 3], 0)


UNTESTED = Told(math.nan, math.nan, math.nan)


def against(estimate: Estimate, low: float, high: float, margin: float = math.nan) -> Told:
    """Tests of a region. With one end infinite these are two one-sided t-tests, and with a margin, about the finite
    end, two one-sided tests of equivalence (Schuirmann 1987); with both ends finite `inside` is that test.

    NaN where the estimate has no error, or there is no margin.
    """

    def above(end: float) -> Any:
        return stdtr(estimate.freedom, np.divide(end - estimate.value, estimate.error))

    def below(end: float) -> Any:
        return stdtr(estimate.freedom, np.divide(estimate.value - end, estimate.error))

    within = [above(low)] if math.isfinite(low) else []
    within += [below(high)] if math.isfinite(high) else []
    beyond = [below(low)] if math.isfinite(low) else []
    beyond += [above(high)] if math.isfinite(high) else []
    inside, outside = np.max(within, axis=0), np.min(beyond, axis=0)
    equal: Any = np.nan
    if math.isfinite(margin) and len(within) == 1:
        center = low if math.isfinite(low) else high
        equal = np.maximum(above(center - margin), below(center + margin))
    return Told(*(np.minimum(np.multiply(2, p), 1.0)[()] for p in (inside, outside, equal)))


def power(error: float, freedom: float, effect: float, level: float = LEVEL) -> float:
    """The probability that a true distance `effect` from the threshold is established, two-sided at `level`."""
    return float(nct.sf(stdtrit(freedom, 1 - level / 2), freedom, abs(effect) / error))


def replicates_needed(estimate: Estimate, effect: float, level: float = LEVEL) -> int | None:
    """The number of replicates (of each case) with which `power` is POWER; None: no number up to MOST_RUNS."""

    def enough(n: int) -> bool:
        seeds = max(estimate.error**2 - estimate.item_error**2, 0.0) * estimate.n / n
        error = math.sqrt(seeds + estimate.item_error**2)
        return power(error, estimate.freedom * n / estimate.n, effect, level) >= POWER

    low, high = 2, MOST_RUNS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
