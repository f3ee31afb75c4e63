import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

from analysis.maths.subspace import gaussian_baseline, phi
from analysis.maths.svd import Array


def frame(dim: int, r: int, seed: int) -> Array:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, r)))[0]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    dim = draw(st.integers(2, 24))
    r_a, r_b = (draw(st.integers(1, dim)) for _ in range(2))
    seeds = st.integers(0, 2**32 - 1)
    return frame(dim, r_a, draw(seeds)), frame(dim, r_b, draw(seeds))


@settings(deadline=None)
@given(pairs())
def test_equals_the_literal_definition(pair: tuple[Array, Array]) -> None:
    u_a, u_b = pair
    literal = [
        [np.linalg.norm(u_a[:, :i].T @ u_b[:, :j], "fro") ** 2 / min(i, j) for j in range(1, u_b.shape[1] + 1)]
        for i in range(1, u_a.shape[1] + 1)
    ]
    np.testing.assert_allclose(phi(u_a, u_b), literal, atol=1e-12)


@settings(deadline=None)
@given(pairs())
def test_equals_the_principal_angles_of_scipy(pair: tuple[Array, Array]) -> None:
    u_a, u_b = pair
    grid = phi(u_a, u_b)
    for i, j in {(1, 1), (1, u_b.shape[1]), (u_a.shape[1], u_b.shape[1])}:
        cosines = np.cos(subspace_angles(u_a[:, :i], u_b[:, :j]))
        assert grid[i - 1, j - 1] == pytest.approx(np.sum(cosines**2) / min(i, j), abs=1e-10)


@settings(deadline=None)
@given(pairs())
def test_is_in_the_unit_interval_and_symmetric(pair: tuple[Array, Array]) -> None:
    u_a, u_b = pair
    grid = phi(u_a, u_b)
    assert grid.min() >= 0
    assert grid.max() <= 1
    np.testing.assert_allclose(phi(u_b, u_a), grid.T, atol=1e-12)


@settings(deadline=None)
@given(pairs())
def test_a_subspace_holds_itself(pair: tuple[Array, Array]) -> None:
    u_a, _ = pair
    np.testing.assert_allclose(phi(u_a, u_a), 1, atol=1e-12)


@settings(deadline=None)
@given(pairs(), st.integers(0, 2**32 - 1))
def test_last_entry_does_not_depend_on_the_basis(pair: tuple[Array, Array], seed: int) -> None:
    u_a, u_b = pair
    rotation = frame(u_a.shape[1], u_a.shape[1], seed)
    assert phi(u_a @ rotation, u_b)[-1, -1] == pytest.approx(phi(u_a, u_b)[-1, -1], abs=1e-10)


@settings(deadline=None, max_examples=30)
@given(pairs(), st.integers(0, 2**32 - 1))
def test_rotating_the_whole_space_changes_nothing(pair: tuple[Array, Array], seed: int) -> None:
    u_a, u_b = pair
    rotation = np.atleast_2d(ortho_group.rvs(u_a.shape[0], random_state=seed))
    np.testing.assert_allclose(phi(rotation @ u_a, rotation @ u_b), phi(u_a, u_b), atol=1e-10)


def test_known_values() -> None:
    e = np.eye(4)
    np.testing.assert_allclose(phi(e[:, :2], e[:, 2:]), 0)
    np.testing.assert_allclose(phi(e[:, :2], e[:, [1, 0, 2]]), [[0, 1, 1], [1, 1, 1]])


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="dimensions 4 and 5"):
        phi(np.eye(4)[:, :2], np.eye(5)[:, :2])


def test_gaussian_baseline_has_its_known_mean_and_covers() -> None:
    baseline = gaussian_baseline(3, 6, dim=40, seed=1, draws=600)
    i, j = np.ogrid[1:4, 1:7]
    np.testing.assert_allclose(baseline.mean, np.maximum(i, j) / 40, rtol=0.25)
    assert (baseline.low <= baseline.mean).all()
    assert (baseline.mean <= baseline.high).all()
    again = gaussian_baseline(3, 6, dim=40, seed=1, draws=2)
    np.testing.assert_array_equal(again.draw, baseline.draw)
