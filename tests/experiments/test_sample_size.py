"""What so many test rows can tell apart."""

import numpy as np
import pytest

from experiments import sample_size


@pytest.mark.parametrize("rows", [1, 29, 400])
def test_the_standard_error_is_that_of_a_share(rows: int) -> None:
    shares = np.random.default_rng(0).binomial(rows, 0.5, 200_000) / rows
    assert sample_size.standard_error(rows) == pytest.approx(shares.std(), rel=0.01)


def test_two_runs_on_few_rows_differ_by_as_much_by_chance() -> None:
    """Of runs that are equally good and err on different rows, one pair in 20 differs by more than the line says."""
    line = sample_size.warning(29)
    assert line is not None
    assert "\n" not in line
    assert line.startswith("warning: 29 test rows: a score has a standard error of up to 9.3 points")
    assert "runs less than 26 points apart" in line
    scores = np.random.default_rng(0).binomial(29, 0.5, (2, 200_000)) / 29
    assert 0.02 < (abs(scores[0] - scores[1]) > 0.26).mean() < 0.06


@pytest.mark.parametrize(("rows", "warned"), [(1, True), (99, True), (100, False), (1000, False), (0, False)])
def test_where_it_warns(rows: int, warned: bool) -> None:
    assert (sample_size.warning(rows, "reviews") is not None) is warned
    if warned:
        assert f"warning: reviews has {rows} test rows" in str(sample_size.warning(rows, "reviews"))
