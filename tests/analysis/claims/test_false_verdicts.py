"""How often made-up studies of known truth get a false verdict: at most 5%, whatever scatters how."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from analysis.claims.engine import Case, Claim, Verdict, judge
from analysis.claims.scales import PLAIN
from analysis.maths import estimates, judging
from analysis.maths.estimates import Estimate

DRAWS = 1000
SETTINGS = 6
MARGIN = 1.0
SPREADS = {
    "equal": np.full(SETTINGS, 0.5),
    "unequal": np.array([1.5, 0.5, 0.2, 0.5, 1.0, 0.3]),
    "one of the pair is wild": np.array([2.0, 0.4, 0.4, 0.4, 0.4, 0.4]),
    "another is wild": np.array([0.4, 0.4, 4.0, 0.4, 0.4, 0.4]),
}


def studies(rng: np.random.Generator, seeds: int, cases: int, spread: np.ndarray, truth: float) -> Estimate:
    """The pooled estimates of DRAWS claims: `cases` tasks, whose differences lie about the truth, and are it in their
    mean; in each a study of SETTINGS settings, of which the first is compared with the second, and some seeds."""
    differ = rng.normal(0, 1, (DRAWS, cases))
    truths = truth + differ - differ.mean(axis=1, keepdims=True)
    found = []
    for case in range(cases):
        runs = rng.normal(0, 1, (DRAWS, SETTINGS, seeds)) * spread[:, None] + rng.normal(0, 2, (DRAWS, 1, seeds))
        runs[:, 0] += truths[:, case, None]
        codes = np.repeat(np.arange(SETTINGS), seeds), np.tile(np.arange(seeds), SETTINGS)
        pooled = estimates.residual(runs.reshape(DRAWS, -1), *codes, apart=(0, 1))
        found.append(estimates.mean(runs[:, 0] - runs[:, 1], pooled, runs=2))
    return estimates.average(found)


def told(estimate: Estimate, low: float, margin: float = MARGIN) -> np.ndarray:
    found = judging.against(estimate, low, math.inf, margin)
    return np.asarray(found.concluded())


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
@pytest.mark.parametrize("cases", [1, 4])
def test_a_verdict_is_false_in_5_percent_at_most(spread: str, seeds: int, cases: int) -> None:
    rng = np.random.default_rng([seeds, cases, len(spread)])
    found = studies(rng, seeds, cases, SPREADS[spread], 0.0)
    assert np.mean(told(found, 0) == 1) <= 0.05  # holds, and it is no more than the threshold
    assert np.mean(told(found, 0) == 2) <= 0.05  # does not hold, and it is no less
    for center in (MARGIN, -MARGIN):
        assert np.mean(told(found, center) == 3) <= 0.05  # equal, and it is a margin away


@pytest.mark.parametrize("spread", SPREADS)
def test_what_is_true_is_found(spread: str) -> None:
    rng = np.random.default_rng(7)
    far = 3 * max(SPREADS[spread][:2])
    assert np.mean(told(studies(rng, 8, 2, SPREADS[spread], far), 0) == 1) > 0.9
    assert np.mean(told(studies(rng, 8, 2, SPREADS[spread], -far), 0) == 2) > 0.9
    assert np.mean(told(studies(rng, 8, 2, SPREADS[spread], 0.0), 0, margin=far) == 3) > 0.8


def claim(cases: Sequence[Case], low: float = 0.0) -> Claim:
    return Claim("key", "statement", "source", "statistic", (), lambda _: list(cases), MARGIN, low, scale=PLAIN)


@pytest.mark.parametrize("spread", ["equal", "unequal"])
def test_of_a_board_of_claims_none_is_false_in_19_of_20(spread: str) -> None:
    rng = np.random.default_rng(8)
    boards, claims = 250, 10
    found = [studies(rng, 3, 2, SPREADS[spread], 0.0) for _ in range(claims)]
    false = 0
    for board in range(boards):
        cases = [
            Case("study", "where", "task", Estimate(*(part[board] for part in one[:3]), 3), "seeds") for one in found
        ]
        verdicts = {judged.verdict for judged in judge([claim([case]) for case in cases], {})}
        false += Verdict.HOLDS in verdicts
    assert false / boards <= 0.05
