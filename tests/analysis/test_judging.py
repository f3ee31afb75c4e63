"""Estimates, tests and power against scipy's tests, formulas written out, and simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.maths import estimates, judging, statistics
from analysis.maths.estimates import Estimate, Residual

X = np.array([0.3, 1.1, 0.7, 1.9, 0.2])
Y = np.array([-0.4, 0.1, 0.9, 0.3])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
def test_one_sample_is_scipys_t_test(threshold: float) -> None:
    found = estimates.mean(X)
    expected = stats.ttest_1samp(X, threshold)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    above = judging.against(found, threshold, math.inf)
    below = judging.against(found, -math.inf, threshold)
    sides = [stats.ttest_1samp(X, threshold, alternative=side).pvalue for side in ("greater", "less")]
    assert (above.inside, above.outside) == pytest.approx([min(2 * p, 1) for p in sides])
    assert (below.outside, below.inside) == pytest.approx((above.inside, above.outside))
    assert min(above.inside, above.outside) == pytest.approx(expected.pvalue)


def test_equivalence_is_two_one_sided_tests() -> None:
    found = estimates.mean(X)
    greater = stats.ttest_1samp(X, -1.5, alternative="greater").pvalue
    less = stats.ttest_1samp(X, 1.5, alternative="less").pvalue
    assert judging.against(found, 0, math.inf, margin=1.5).equal == pytest.approx(2 * max(greater, less))
    assert judging.against(found, -1.5, 1.5).inside == pytest.approx(2 * max(greater, less))
    outside = min(stats.ttest_1samp(X, -1.5, alternative="less").pvalue, 1 - less)
    assert judging.against(found, -1.5, 1.5).outside == pytest.approx(min(2 * outside, 1))


def test_a_p_below_5_percent_is_an_interval_on_one_side() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = estimates.mean(rng.normal(0.3, 1, rng.integers(2, 9)))
        low, high = found.interval
        told = judging.against(found, -0.5, 0.5)
        assert (told.inside < 0.05) == (low > -0.5 and high < 0.5)
        assert (told.outside < 0.05) == (high < -0.5 or low > 0.5)
        told = judging.against(found, 0, math.inf, margin=0.5)
        assert (told.inside < 0.05, told.outside < 0.05) == (low > 0, high < 0)
        assert (told.equal < 0.05) == (low > -0.5 and high < 0.5)


def test_differences_and_means_of_two_are_welchs() -> None:
    expected = stats.ttest_ind(X, Y, equal_var=False)
    apart = estimates.difference(estimates.mean(X), estimates.mean(Y))
    assert apart.interval == pytest.approx(tuple(expected.confidence_interval()))
    both = estimates.average([estimates.mean(X), estimates.mean(-Y)])  # half the difference
    assert both.interval == pytest.approx([end / 2 for end in expected.confidence_interval()])
    assert both.freedom == pytest.approx(expected.df)


def test_ties_add_errors_in_full() -> None:
    parts = [Estimate(1, 0.3, 4, 5), Estimate(2, 0.4, 8, 3), Estimate(6, 1.2, 2, 4)]
    tied = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=bool)
    found = estimates.average(parts, tied)
    assert found.value == pytest.approx(3)
    assert found.error == pytest.approx(math.hypot(0.7, 1.2) / 3)
    assert (found.freedom, found.n) == (2, 3)
    assert estimates.average(parts).error == pytest.approx(math.sqrt(0.09 + 0.16 + 1.44) / 3)


def test_the_residual_is_that_of_two_ways() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(0, 0.4, (5, 3)) + rng.normal(0, 3, (5, 1)) + rng.normal(0, 3, 3)
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    settings, seeds = np.repeat(np.arange(5), 3), np.tile(np.arange(3), 5)
    found = estimates.residual(table.ravel(), settings, seeds)
    assert found == pytest.approx(Residual(math.sqrt((left**2).sum() / 8), 8))
    # A setting with one run says nothing; a missing run is a missing run.
    lacking = estimates.residual([*table.ravel()[1:], 99.0], [*settings[1:], 9], [*seeds[1:], 0])
    design = np.hstack([settings[1:, None] == np.arange(5), seeds[1:, None] == np.arange(3)]).astype(float)
    _, squares, rank, _ = np.linalg.lstsq(np.delete(design, -1, axis=1), table.ravel()[1:], rcond=None)
    assert lacking == pytest.approx(Residual(math.sqrt(squares[0] / (14 - rank)), 14 - rank))


def test_settings_that_scatter_differently_are_not_pooled() -> None:
    rng = np.random.default_rng(2)
    settings, seeds = np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)
    spread = np.array([1, 1, 1, 30])[settings]
    assert estimates.residual(rng.normal(0, 1, 16), settings, seeds).freedom == 9
    assert estimates.residual(rng.normal(0, spread), settings, seeds).freedom == 0
    assert estimates.residual(np.ones(16), settings, seeds).freedom == 0
    assert estimates.residual([1.0, 2.0], [0, 0], [0, 1]).freedom == 0


def test_the_settings_compared_are_not_pooled_but_must_scatter_alike() -> None:
    rng = np.random.default_rng(9)
    settings, seeds = np.repeat(np.arange(5), 3), np.tile(np.arange(3), 5)
    runs = rng.normal(0, 1, 15)
    without = estimates.residual(runs[6:], settings[6:], seeds[6:])
    assert estimates.residual(runs, settings, seeds, apart=(0, 1)) == pytest.approx(without)
    runs[:3] *= 100
    assert estimates.residual(runs, settings, seeds, apart=(0, 1)).freedom == 0


def test_pooling_is_for_pairs_that_scatter_no_more() -> None:
    pooled = Residual(0.1, 20)
    assert estimates.mean([1.0, 1.01], pooled, runs=2) == pytest.approx((1.005, 0.1, 20, 2, 0))
    wide = estimates.mean([0.0, 2.0], pooled, runs=2)
    assert (wide.error, wide.freedom) == (pytest.approx(1), 1)
    median = math.sqrt(2 * stats.f.median(1, 20)) * 0.1  # of the standard deviation of two differences
    for factor, freedom in ((0.99, 20), (1.01, 1)):
        half = factor * median / math.sqrt(2)
        assert estimates.mean([-half, half], pooled, runs=2).freedom == freedom
    assert math.isnan(estimates.mean([1.0], pooled).error)
    assert math.isnan(estimates.mean([1.0, 1.0]).error)


def test_heterogeneity_by_the_formulas() -> None:
    y, v = np.array([0.1, 0.4, 0.9]), np.array([0.01, 0.04, 0.02])
    center = np.average(y, weights=1 / v)
    q = ((y - center) ** 2 / v).sum()
    c = (1 / v).sum() - (1 / v**2).sum() / (1 / v).sum()
    found = estimates.heterogeneity([Estimate(a, math.sqrt(b), 9, 3) for a, b in zip(y, v, strict=True)])
    assert found == pytest.approx((1 - 2 / q, math.sqrt((q - 2) / c)))
    assert estimates.heterogeneity([Estimate(1, 0.1, 9, 3), Estimate(1.01, 0.1, 9, 3)]) == (0, 0)
    assert math.isnan(estimates.heterogeneity([Estimate(1, 0.1, 9, 3)]).tau)


@pytest.mark.parametrize(("effect", "n"), [(0.8, 5), (1.5, 8)])
def test_power_is_how_often_it_is_found(effect: float, n: int) -> None:
    draws = np.random.default_rng(3).normal(effect, 1, (10000, n))
    found = judging.against(estimates.mean(draws), 0, math.inf).inside
    assert judging.power(1 / math.sqrt(n), n - 1, effect) == pytest.approx(np.mean(found < 0.05), abs=0.012)


def test_the_replicates_needed_are_the_fewest_that_do() -> None:
    found = judging.replicates_needed(Estimate(0, 1, 3, 4), effect=1)
    assert found is not None
    powers = [judging.power(math.sqrt(4 / n), 3 * n / 4, 1) for n in (found - 1, found)]
    assert powers[0] < 0.8 <= powers[1]
    # With the error of the items alone above the effect no number of seeds does.
    assert judging.replicates_needed(Estimate(0, 1.2, 3, 4, item_error=1), effect=1) is None


def two_way_draw(rng: np.random.Generator, seeds: int, items: int, parts: tuple[float, float, float]) -> np.ndarray:
    of_seeds, of_items, of_both = parts
    return rng.normal(0, of_seeds, (seeds, 1)) + rng.normal(0, of_items, items) + rng.normal(0, of_both, (seeds, items))


@pytest.mark.parametrize("parts", [(0.1, 1, 0.5), (0.3, 0.3, 1), (0.0, 1, 1), (0.5, 0.0, 1)])
def test_seeds_and_items_are_both_in_the_error(parts: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(4)
    found = [estimates.two_way(two_way_draw(rng, 5, 80, parts)) for _ in range(1000)]
    truth = parts[0] ** 2 / 5 + parts[1] ** 2 / 80 + parts[2] ** 2 / 400
    assert np.mean([one.error**2 for one in found]) == pytest.approx(truth, rel=0.25)
    ends = np.array([one.interval for one in found])
    assert np.mean((ends[:, 0] < 0) & (ends[:, 1] > 0)) > 0.93


def test_the_error_is_that_of_a_bootstrap_over_seeds_and_items() -> None:
    rng = np.random.default_rng(5)
    seeds, items = 40, 300
    table = two_way_draw(rng, seeds, items, (0.2, 1, 0.3))
    draws = [table[rng.integers(0, seeds, seeds)][:, rng.integers(0, items, items)].mean() for _ in range(2000)]
    assert estimates.two_way(table).error == pytest.approx(np.std(draws), rel=0.08)


def test_many_studies_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(6)
    runs = rng.normal(0, 1, (7, 12))
    settings, seeds = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    pooled = estimates.residual(runs, settings, seeds)
    many = estimates.mean(runs[:, :3] - runs[:, 3:6], pooled, runs=2)
    both = estimates.average([many, estimates.mean(runs[:, 6:9])])
    told = judging.against(both, 0, math.inf, margin=1)
    for index, own in enumerate(runs):
        alone = estimates.mean(own[:3] - own[3:6], estimates.residual(own, settings, seeds), runs=2)
        whole = estimates.average([alone, estimates.mean(own[6:9])])
        assert whole[:3] == pytest.approx([both[name][index] for name in range(3)])
        assert judging.against(whole, 0, math.inf, margin=1) == pytest.approx([p[index] for p in told])


def test_the_tables_say_the_same_of_the_same_pairs() -> None:
    rng = np.random.default_rng(10)
    ours, theirs = (pd.Series(rng.normal(center, 1, 6)) for center in (0.5, 0))
    table = statistics.paired(ours, theirs)
    found = estimates.mean(ours - theirs)
    told = judging.against(found, 0, math.inf)
    assert (found.value, found.n) == (pytest.approx(table.difference), table.pairs)
    assert found.interval[1] - found.value == pytest.approx(table.interval)
    assert min(told.inside, told.outside) == pytest.approx(table.p)
