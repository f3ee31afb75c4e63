"""What a claim is, and how its verdict follows from the intervals of its cases."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd

ENOUGH = 3  # seeds, or whatever a case counts, below which its interval decides nothing
RULE = f"""\
A claim is judged case by case, against a threshold that is part of the claim and the same for every case. A case is
one model and task, or what the claim names, and its estimate has a 95% interval. It **holds** if the whole interval is
on the claimed side of the threshold, it **fails** if the whole interval is on the other side, and else it is **open**.
With fewer than {ENOUGH} seeds (or layers, or cells: what the interval is over) a case is shown and does not count.

The claim **holds** if at least half of the cases that count hold and none fails, it **does not hold here** if at least
half fail and none holds, and else it is **not decided**: the intervals are too wide, or cases contradict each other.
Half, because one interval in 40 lies above its threshold by chance, and one below: a single case of many proves little.

That two things are equal, or that one adds nothing to the other, is a claim that the interval lies within a margin, not
that a test found no difference. Intervals are Student's t unless said otherwise. Those over seeds hold what the start
and the order of training change, not what other test data would. Nothing is corrected for the number of claims."""


class Verdict(StrEnum):
    """What the stored runs say of a claim, or of one case: open cases are `not decided`."""

    HOLDS = "holds"
    FAILS = "does not hold here"
    UNDECIDED = "not decided"
    NO_RUNS = "no runs"


class Scale(NamedTuple):
    """How estimates are written: times factor, with so many digits, a sign where they are differences, and a unit."""

    factor: float = 1
    digits: int = 2
    signed: bool = False
    unit: str = ""

    def number(self, value: float) -> str:
        """The number alone, without its unit."""
        rounded = round(self.factor * value, self.digits) + 0.0  # no -0.0
        return f"{rounded:{'+' if self.signed else ''}.{self.digits}f}"

    def text(self, value: float) -> str:
        """The number with its unit."""
        return f"{self.number(value)}{self.unit}"


POINTS = Scale(100, 1, signed=True, unit=" points")
PERCENT = Scale(100, 1, unit="%")
PLAIN = Scale()
SIGNED = Scale(signed=True)
TIMES = Scale(unit="×")


class Case(NamedTuple):
    """An estimate with its 95% interval (NaN: there is none), over n of `unit`, from runs of a study.

    where says what it is of: model, task, and what else tells it from other cases. exact: it is a count or a
    computation, which has no spread, so that n does not matter.
    """

    study: str
    where: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    runs: tuple[str, ...] = ()
    exact: bool = False

    @property
    def counts(self) -> bool:
        """Whether it can decide anything."""
        return bool((self.exact or self.n >= ENOUGH) and np.isfinite([self.low, self.high]).all())


Frames = Mapping[str, pd.DataFrame]
Judge = Callable[[Frames], list[Case]]


@dataclass(frozen=True)
class Claim:
    """A claim, and how it is judged: it holds in a case whose interval lies within [low, high].

    files        what `judge` reads, study/file.csv below results/<preset>; it gets those that are there, by name.
    judge        the cases that are in them; none: there are no runs.
    command      what makes the runs, if it is not the make target of the study of the first file.
    """

    key: str
    statement: str
    source: str
    statistic: str
    files: tuple[str, ...]
    judge: Judge
    low: float = -np.inf
    high: float = np.inf
    scale: Scale = POINTS
    command: str = ""

    @property
    def threshold(self) -> str:
        """The threshold in words."""
        if np.isinf(self.high):
            return f"above {self.scale.text(self.low)}" if self.low else "above 0"
        if np.isinf(self.low):
            return f"below {self.scale.text(self.high)}" if self.high else "below 0"
        if self.low == self.high:
            return f"at {self.scale.text(self.low)}"
        if self.low == -self.high:
            return f"within ±{self.scale._replace(signed=False).text(self.high)}"
        return f"from {self.scale.number(self.low)} to {self.scale.text(self.high)}"

    def of(self, case: Case) -> Verdict:
        """The verdict on one case."""
        if not case.counts:
            return Verdict.UNDECIDED
        if self.low <= case.low and case.high <= self.high:
            return Verdict.HOLDS
        return Verdict.FAILS if case.high < self.low or case.low > self.high else Verdict.UNDECIDED


class Judged(NamedTuple):
    """A claim with its cases and its verdict."""

    claim: Claim
    cases: list[Case]
    verdict: Verdict


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim from those of the cases that count: see RULE."""
    holds, fails = (sum(verdict is side for verdict in verdicts) for side in (Verdict.HOLDS, Verdict.FAILS))
    if holds and not fails and 2 * holds >= len(verdicts):
        return Verdict.HOLDS
    if fails and not holds and 2 * fails >= len(verdicts):
        return Verdict.FAILS
    return Verdict.UNDECIDED


def judge(claim: Claim, frames: Frames) -> Judged:
    """Judge a claim on those of its files that are there; frames, by their names, may hold others too."""
    cases = claim.judge({name: frames[name] for name in claim.files if name in frames})
    if not cases:
        return Judged(claim, [], Verdict.NO_RUNS)
    return Judged(claim, cases, combine([claim.of(case) for case in cases if case.counts]))
