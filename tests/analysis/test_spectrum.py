"""Ranks, angles and intruder dimensions where they are known, and against numpy and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import entropy

from analysis.maths import spectrum
from analysis.maths.subspace import phi
from analysis.maths.svd import SVD, Array, random_directions

VALUES = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30)


@given(VALUES, st.floats(0.01, 100))
def test_ranks_of_a_spectrum(values: list[float], factor: float) -> None:
    S = np.array(values)
    stable, effective = spectrum.stable_rank(S), spectrum.effective_rank(S)
    assert stable == pytest.approx(np.linalg.norm(S) ** 2 / S.max() ** 2)
    assert effective == pytest.approx(np.exp(entropy(S)))
    for rank in (stable, effective):
        assert 1 - 1e-9 <= rank <= len(S) + 1e-9
    assert spectrum.stable_rank(factor * S) == pytest.approx(stable)
    assert spectrum.effective_rank(factor * S) == pytest.approx(effective)
    ranks = [spectrum.energy_rank(S, share) for share in (0.5, 0.9, 0.99, 1)]
    assert ranks == sorted(ranks) and ranks[0] >= 1 and ranks[-1] <= len(S)


def test_ranks_that_are_known() -> None:
    assert spectrum.stable_rank([2, 0, 0]) == spectrum.effective_rank([2, 0, 0]) == 1
    assert spectrum.stable_rank([3] * 5) == pytest.approx(5)
    assert spectrum.effective_rank([3] * 5) == pytest.approx(5)
    assert [spectrum.energy_rank([3] * 10, share) for share in (0.5, 0.9, 0.99)] == [5, 9, 10]
    assert spectrum.energy_rank([1, 100, 1], 0.99) == 1


@settings(deadline=None)
@given(st.integers(3, 20), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_angles_are_scipys_and_their_cosines_are_phi(dim: int, r_1: int, r_2: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_directions(dim, r_1, rng), random_directions(dim, r_2, rng)
    found = spectrum.principal_angles(first, second)
    angles = subspace_angles(first, second)
    assert found.smallest == pytest.approx(np.degrees(angles.min()))
    assert found.shared == pytest.approx(phi(first, second)[-1, -1], abs=1e-10)
    assert spectrum.principal_angles(first, first).smallest == pytest.approx(0, abs=1e-5)


def test_random_subspaces_share_by_chance() -> None:
    chance = spectrum.random_angles(50, 4, 4, draws=1000)
    assert chance.shared == pytest.approx(4 / 50, rel=0.05)
    assert chance.shared_low < chance.shared < chance.shared_high
    assert chance.smallest_low < chance.smallest < chance.smallest_high < 90
    rng = np.random.default_rng(9)
    drawn = [
        spectrum.principal_angles(random_directions(50, 4, rng), random_directions(50, 4, rng)).smallest
        for _ in range(400)
    ]
    inside = np.mean([chance.smallest_low <= angle <= chance.smallest_high for angle in drawn])
    assert 0.9 < inside < 0.99


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_top_directions_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    M = np.random.default_rng(0).standard_normal(shape)
    U, _, Vh = np.linalg.svd(M, full_matrices=False)
    left, right = spectrum.top_directions(M, 5)
    for ours, theirs in ((left, U[:, :5]), (right, Vh[:5].T)):
        np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=0)), 1, atol=1e-8)


def weights(d: int = 60, k: int = 80) -> tuple[Array, SVD]:
    W = np.random.default_rng(0).standard_normal((d, k)) * np.linspace(2, 0.1, k)
    return W, SVD(*np.linalg.svd(W, full_matrices=False))


def count(W: Array, of_w: SVD, update: Array, epsilon: float) -> tuple[int, int]:
    left, right = spectrum.top_directions(W + update, 10)
    return (
        spectrum.intruders(spectrum.best_matches(left, of_w.U), [epsilon])[0],
        spectrum.intruders(spectrum.best_matches(right, of_w.Vh.T), [epsilon])[0],
    )


def test_one_large_random_direction_is_one_intruder() -> None:
    W, of_w = weights()
    rng = np.random.default_rng(5)
    update = 10 * of_w.S[0] * random_directions(60, 1, rng) @ random_directions(80, 1, rng).T
    assert count(W, of_w, update, 0.6) == (1, 1)
    assert count(W, of_w, np.zeros_like(W), 0.99) == (0, 0)


def test_an_update_along_w_makes_no_intruder() -> None:
    W, of_w = weights()
    update = 20 * of_w.S[3] * np.outer(of_w.U[:, 3], of_w.Vh[3])
    assert count(W, of_w, update, 0.99) == (0, 0)
    matches = [0.2, 0.45, 0.55, 0.9]
    assert spectrum.intruders(matches, (0.4, 0.5, 0.6)) == [1, 2, 3]


def test_random_directions_keep_the_spectrum() -> None:
    _, of_w = weights()
    update = SVD(of_w.U[:, :4], of_w.S[:4], of_w.Vh[:4])
    turned = spectrum.random_turned(update, np.random.default_rng(1))
    dense = (turned.U * turned.S) @ turned.Vh
    np.testing.assert_allclose(np.linalg.svd(dense, compute_uv=False)[:5], [*of_w.S[:4], 0], atol=1e-10)
    assert phi(update.U, turned.U)[3, 3] < 0.3
