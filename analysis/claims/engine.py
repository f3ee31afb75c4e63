"""What a claim is, and how its verdict follows from the runs: one estimate, pooled over cases, and one test."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.scales import POINTS, Scale
from analysis.maths import estimates, judging
from analysis.maths.estimates import LEVEL, Estimate, Heterogeneity
from analysis.maths.statistics import holm

ENOUGH = 3  # seeds below which a study's answer in a sentence decides nothing
RULE = f"""\
**One estimate a claim.** A case is a model on a task; settings that a claim is not about (weight types, ranks, layers)
are averaged within a seed first. Cases of one task are averaged, so that a task counts once, and then tasks, each with
the same weight. What is judged is this mean over the tasks that were run; I² and tau say how much they differ, and
another task may lie as far from the mean as these do.

**Replicates are runs**: seeds, pairs of runs, or rounds of a measurement, never layers, cells of a grid or values of
alpha. Errors are Student's t, by seed (pairs of the same seed), and those of a mean Welch and Satterthwaite's. Where
the settings of a study scatter alike (Bartlett's test, p above {estimates.SAME_SPREAD:g}) and the pair no more than the
others, its error is from their spread, pooled; else it is its own. Runs that predict one class are in no mean, and
are counted. Where runs say how each test item was answered, items are in the error too; else it is of seeds only.

**Verdicts.** A claim **holds** if its estimate is beyond the claim's threshold, and **does not hold here** if it is on
the other side, by a test at 5% that is corrected, by Holm's method, for all claims that are tested. It is **equal
within the margin** if two one-sided tests say, as strictly, that it is nearer to the threshold than the margin. Else it
is **not decided**, and it is said with how many seeds a difference as large as the one found, or the margin if that is
larger, would be established with a probability of 80%. Wherever random directions would pass too, the claim is about
what is beyond them. What is computed or counted has no error, and is compared as it is."""


class Verdict(StrEnum):
    """What the stored runs say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold here"
    EQUAL = "equal within the margin"
    UNDECIDED = "not decided"
    NO_RUNS = "no runs"


class Case(NamedTuple):
    """The estimate of one case, over replicates of `unit`, from runs of a study.

    place says what it is of: model, task, and what else tells it from other cases. task: cases of the same task count
    once. exact: it is a count or a computation, which has no spread. note: what a reader must know, such as runs that
    were left out. items: test items are in its error.
    """

    study: str
    place: str
    task: str
    estimate: Estimate
    unit: str
    runs: tuple[str, ...] = ()
    exact: bool = False
    note: str = ""
    items: bool = False


Frames = Mapping[str, pd.DataFrame]
Judge = Callable[[Frames], list[Case]]


@dataclass(frozen=True)
class Claim:
    """A claim, and how it is judged: it holds if the estimate is within [low, high].

    files        what `judge` reads, study/file.csv below results/<preset>; it gets those that are there, by name.
    judge        the cases that are in them; none: there are no runs.
    margin       the smallest difference that matters, in the unit of the estimate: power is that of finding it beyond
                 the threshold, and where the threshold is that of no difference, what is nearer is equal.
    least        replicates with which a case counts.
    command      what makes the runs, if it is not the make target of the study of the first file.

    Of ratios (scale.log) low, high and margin are ratios too.
    """

    key: str
    statement: str
    source: str
    statistic: str
    files: tuple[str, ...]
    judge: Judge
    margin: float
    low: float = -np.inf
    high: float = np.inf
    scale: Scale = POINTS
    least: int = 2
    command: str = ""

    @property
    def region(self) -> tuple[float, float]:
        """[low, high] as estimates are: logarithms of ratios."""
        if not self.scale.log:
            return self.low, self.high
        return math.log(self.low) if self.low > 0 else -math.inf, math.log(self.high)

    @property
    def effect(self) -> float:
        """The margin as estimates are."""
        return math.log(self.margin) if self.scale.log else self.margin

    @property
    def of_equality(self) -> bool:
        """Whether it says that a difference is within a margin of none."""
        low, high = self.region
        return low < high and math.isclose(low, -high)

    @property
    def may_be_equal(self) -> bool:
        """Whether its threshold is that of no difference, so that an estimate near it says something of its own."""
        return 0 in self.region

    @property
    def threshold(self) -> str:
        """The threshold in words."""
        low, high = self.region
        if math.isinf(high):
            return f"above {self.scale.text(low) if low or self.scale.log else 0}"
        if math.isinf(low):
            return f"below {self.scale.text(high) if high or self.scale.log else 0}"
        if low == high:
            return f"at {self.scale.text(low)}"
        if self.of_equality and not self.scale.log:
            return f"within ±{self.scale.distance(high)}"
        return f"from {self.scale.number(low)} to {self.scale.text(high)}"


class Judged(NamedTuple):
    """A claim with its cases, the pooled estimate (None: there is none), how much tasks differ, the tests, corrected
    for all claims (NaN: none), the verdict, and, with an error, the power to find `effect` at the level that Holm's
    method asks of it, and the replicates that would give a power of 80% (None: more than a thousand). effect is what is
    between the estimate and the threshold, and the margin at least."""

    claim: Claim
    cases: list[Case]
    verdict: Verdict
    estimate: Estimate | None = None
    differ: Heterogeneity = estimates.ALONE
    tests: judging.Told = judging.UNTESTED
    effect: float = math.nan
    power: float = math.nan
    needed: int | None = None

    @property
    def p(self) -> float:
        """The corrected p of its verdict; of none, the smallest of what could have been concluded."""
        own = {Verdict.HOLDS: self.tests.inside, Verdict.FAILS: self.tests.outside}
        own[Verdict.EQUAL] = self.tests.inside if self.claim.of_equality else self.tests.equal
        return own.get(self.verdict, self.tests.least)


def counts(claim: Claim, case: Case) -> bool:
    """Whether a case is part of the estimate."""
    return case.exact or (case.estimate.n >= claim.least and case.estimate.error > 0)


def pool(cases: Sequence[Case]) -> tuple[Estimate, Heterogeneity]:
    """The mean over tasks of the means over a task's cases, and how much tasks differ.

    Cases of a task that share a run are not independent: see `estimates.average`.
    """
    tasks: dict[str, list[Case]] = {}
    for case in cases:
        tasks.setdefault(case.task, []).append(case)
    means = []
    for own in tasks.values():
        tied = np.array([[bool(set(one.runs) & set(other.runs)) for other in own] for one in own])
        means.append(estimates.average([case.estimate for case in own], tied))
    return estimates.average(means), estimates.heterogeneity(means)


def judge(claims: Sequence[Claim], frames: Frames) -> list[Judged]:
    """Judges claims together, each on those of its files that are there; frames, by their names, may hold others too.
    p-values are corrected for all that are tested in this call."""
    found = [_estimated(claim, claim.judge({n: frames[n] for n in claim.files if n in frames})) for claim in claims]
    return [_decided(judged, steps) for judged, steps in zip(found, _steps(found), strict=True)]


def _estimated(claim: Claim, cases: list[Case]) -> Judged:
    """A claim before the correction for all claims."""
    if not cases:
        return Judged(claim, [], Verdict.NO_RUNS)
    counted = [case for case in cases if counts(claim, case)]
    exact = [case for case in counted if case.exact]
    low, high = claim.region
    if exact:
        value = float(np.mean([case.estimate.value for case in exact]))
        verdict = Verdict.HOLDS if low <= value <= high else Verdict.FAILS
        return Judged(claim, cases, verdict, Estimate(value, 0.0, math.inf, 1))
    if not counted:
        return Judged(claim, cases, Verdict.UNDECIDED)
    estimate, differ = pool(counted)
    margin = claim.effect if claim.may_be_equal else math.nan
    return Judged(claim, cases, Verdict.UNDECIDED, estimate, differ, judging.against(estimate, low, high, margin))


def _steps(found: Sequence[Judged]) -> list[tuple[float, float]]:
    """Holm's steps: for each claim what its p-values are multiplied by, and the least that they are then; NaN, NaN for
    what is not tested. A claim's place is that of the smallest of its p-values; only one of the conclusions that they
    are of can be wrong at a time, so that a claim counts once."""
    p = np.array([judged.tests.least for judged in found])
    order = [index for index in np.argsort(p, kind="stable") if not np.isnan(p[index])]
    corrected = holm(p)
    steps = [(math.nan, math.nan)] * len(found)
    floor = 0.0
    for place, index in enumerate(order):
        steps[index] = float(len(order) - place), floor
        floor = float(corrected[index])
    return steps


def _decided(judged: Judged, step: tuple[float, float]) -> Judged:
    factor, floor = step
    if math.isnan(factor) or judged.estimate is None:
        return judged
    claim, estimate = judged.claim, judged.estimate
    found = judged.tests.corrected(factor, floor)
    inside = Verdict.EQUAL if claim.of_equality else Verdict.HOLDS
    verdict = [Verdict.UNDECIDED, inside, Verdict.FAILS, Verdict.EQUAL][int(found.concluded())]
    level = LEVEL / factor
    effect = max(claim.effect, min(abs(estimate.value - end) for end in claim.region))
    return judged._replace(
        verdict=verdict,
        tests=found,
        effect=effect,
        power=judging.power(estimate.error, estimate.freedom, effect, level),
        needed=judging.replicates_needed(estimate, effect, level),
    )
