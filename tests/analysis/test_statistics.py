import numpy as np
import pandas as pd
import pytest

from analysis.maths import statistics


def by_seed(*values: float, seeds: tuple[int, ...] | None = None) -> pd.Series:
    return pd.Series(values, index=list(seeds or range(len(values))))


def test_paired_difference_is_the_one_computed_by_hand() -> None:
    # Differences 1, 2, 6: mean 3, standard deviation sqrt(7), standard error sqrt(7 / 3); t = 3 / sqrt(7 / 3) with two
    # degrees of freedom, whose distribution has the closed form F(t) = 1/2 + t / (2 sqrt(2 + t^2)).
    found = statistics.paired(by_seed(11.0, 12.0, 16.0), by_seed(10.0, 10.0, 10.0))
    t = 3 / (7 / 3) ** 0.5
    assert (found.pairs, found.difference) == (3, pytest.approx(3))
    assert found.interval == pytest.approx(4.302653 * (7 / 3) ** 0.5, rel=1e-6)
    assert found.p == pytest.approx(1 - t / (2 + t**2) ** 0.5)


def test_pairs_go_by_seed_and_lonely_seeds_do_not_count() -> None:
    found = statistics.paired(by_seed(5.0, 1.0, 3.0, seeds=(2, 0, 1)), by_seed(0.0, 1.0, 9.0, seeds=(0, 1, 7)))
    assert (found.pairs, found.difference) == (2, pytest.approx(1.5))
    assert statistics.paired(by_seed(1.0, seeds=(0,)), by_seed(1.0, seeds=(1,))) == pytest.approx(
        statistics.NOTHING, nan_ok=True
    )


@pytest.mark.parametrize(("ours", "theirs"), [((0.8,), (0.7,)), ((0.81, 0.82), (0.8, 0.81)), ((0.5, 0.5), (0.5, 0.5))])
def test_one_pair_or_no_spread_is_no_test(ours: tuple[float, ...], theirs: tuple[float, ...]) -> None:
    found = statistics.paired(by_seed(*ours), by_seed(*theirs))
    assert found.difference == pytest.approx(ours[0] - theirs[0])
    assert np.isnan([found.interval, found.p]).all()


def test_holm_is_the_step_down_by_hand() -> None:
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.2 x 1; a later one is never smaller than an earlier one.
    np.testing.assert_allclose(statistics.holm([0.03, 0.01, 0.2, 0.02]), [0.06, 0.04, 0.2, 0.06])
    np.testing.assert_allclose(statistics.holm([0.02, 0.011]), [0.022, 0.022])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1, 1])


def test_holm_counts_only_tests() -> None:
    np.testing.assert_allclose(statistics.holm([np.nan, 0.04, np.nan]), [np.nan, 0.04, np.nan])
    assert statistics.holm([]).shape == (0,)


def test_against_pairs_each_group_with_the_reference_and_corrects_together() -> None:
    rows = [
        (label, "", seed, value)
        for label, values in (
            ("base", (1.0, 2.0, 4.0)),
            ("up", (3.0, 3.0, 7.0)),
            ("down", (0.0, 1.5, 2.0)),
            ("one", (9.0,)),
        )
        for seed, value in enumerate(values)
    ]
    runs = pd.DataFrame(rows, columns=["label", "settings", "seed", "value"])
    found = statistics.against(runs, ["label", "settings"], ("base", "")).set_index("label")
    assert found["difference"].to_dict() == pytest.approx({"up": 2.0, "down": -3.5 / 3, "one": 8.0})
    assert found["pairs"].to_dict() == {"up": 3, "down": 3, "one": 1}
    tested = found.loc[["up", "down"], "p"]
    assert found.loc[tested.idxmin(), "p_holm"] == pytest.approx(2 * tested.min())
    assert np.isnan(found.loc["one", "p_holm"])


def test_words() -> None:
    assert statistics.mean_text(0.8123, 0.0101, 5) == "81.2 ± 1.0 (5)"
    assert statistics.mean_text(0.8123, np.nan, 1) == "81.2 (1)"
    assert statistics.mean_text(0.8123, np.nan, np.nan) == "81.2"
    assert statistics.difference_text(-0.012, 0.01, 0.0333) == "-1.2 ± 1.0, p 0.033 *"
    assert statistics.difference_text(0.012, np.nan, np.nan) == "+1.2"
