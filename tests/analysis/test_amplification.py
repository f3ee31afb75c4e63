"""||U^T W V||_F, the amplification factor and top singular vectors against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator
from scipy.stats import ortho_group

from analysis.maths import amplification as amplification_module
from analysis.maths.amplification import (
    amplification,
    expected_projection,
    projection_norm,
    random_projection,
    top_singular,
)
from analysis.maths.subspace import gaussian_baseline, phi, random_baseline
from analysis.maths.svd import Array, random_directions

SIZES = st.tuples(st.integers(2, 20), st.integers(2, 20), st.integers(1, 4), st.integers(0, 2**32 - 1))


def matrices(sizes: tuple[int, int, int, int]) -> tuple[Array, Array, Array]:
    d, k, r, seed = sizes
    rng = np.random.default_rng(seed)
    r = min(r, d, k)
    return random_directions(d, r, rng), rng.standard_normal((d, k)), random_directions(k, r, rng)


@settings(deadline=None)
@given(SIZES)
def test_the_projection_is_the_definition_and_needs_the_subspaces_alone(sizes: tuple[int, int, int, int]) -> None:
    U, W, V = matrices(sizes)
    assert projection_norm(U, W, V) == pytest.approx(np.linalg.norm(U.T @ W @ V), rel=1e-10)
    if (r := U.shape[1]) > 1:
        turns = [ortho_group.rvs(r, random_state=seed) for seed in (1, 2)]
        assert projection_norm(U @ turns[0], W, V @ turns[1]) == pytest.approx(projection_norm(U, W, V), rel=1e-10)


@settings(deadline=None)
@given(SIZES, st.floats(0.01, 100))
def test_an_update_that_repeats_the_top_of_w_is_amplified_by_its_factor(
    sizes: tuple[int, int, int, int], factor: float
) -> None:
    _, W, V = matrices(sizes)
    r = V.shape[1]
    U, S, Vh = np.linalg.svd(W)
    delta_w = factor * (U[:, :r] * S[:r]) @ Vh[:r]
    u, _, vh = np.linalg.svd(delta_w)
    projection = projection_norm(u[:, :r], W, vh[:r].T)
    assert projection == pytest.approx(np.linalg.norm(S[:r]), rel=1e-8)
    assert amplification(float(np.linalg.norm(delta_w)), projection) == pytest.approx(factor, rel=1e-8)


@pytest.mark.parametrize("r", [1, 3, 8])
def test_random_directions_have_the_expected_share(r: int) -> None:
    W = np.random.default_rng(1).standard_normal((24, 40)) * np.linspace(3, 0, 40)
    chance = random_projection(W, r, draws=1500)
    assert chance.low < chance.mean < chance.high
    # The root of the mean square is exact; the mean lies below it by the variance.
    exact = expected_projection(float(np.linalg.norm(W)), (24, 40), r)
    assert chance.mean <= exact
    assert chance.mean == pytest.approx(exact, rel=0.35 / r)
    rng = np.random.default_rng(2)
    squares = [
        projection_norm(random_directions(24, r, rng), W, random_directions(40, r, rng)) ** 2 for _ in range(3000)
    ]
    assert np.sqrt(np.mean(squares)) == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("shape", [(170, 260), (260, 170), (200, 200)])
@pytest.mark.parametrize("decay", [False, True])
def test_the_iteration_agrees_with_the_dense_svd(shape: tuple[int, int], decay: bool) -> None:
    W = np.random.default_rng(0).standard_normal(shape) * (np.arange(1, shape[1] + 1) ** -0.5 if decay else 1)
    U, S, Vh = np.linalg.svd(W, full_matrices=False)
    r = 3
    found = top_singular(W, r, dense=16)
    np.testing.assert_allclose(found.S, S[:r], rtol=1e-5)
    for ours, theirs in ((found.U, U[:, :r]), (found.Vh.T, Vh[:r].T)):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=0)), 1, atol=1e-5)
        np.testing.assert_allclose(ours.T @ ours, np.eye(r), atol=1e-8)
    np.testing.assert_allclose(top_singular(W, r).S, S[:r], rtol=1e-12)


def test_singular_values_that_lie_close_are_found_in_single_precision_too() -> None:
    W = np.random.default_rng(3).standard_normal((400, 420), dtype=np.float32)
    S = np.linalg.svd(W.astype(np.float64), compute_uv=False)
    found = top_singular(W, 8, dense=64)
    np.testing.assert_allclose(found.S, S[:8], rtol=1e-5)
    U = np.linalg.svd(W.astype(np.float64))[0]
    assert phi(U[:, :8], found.U)[7, 7] == pytest.approx(1, abs=1e-5)
    assert projection_norm(found.U, W, found.Vh.T) == pytest.approx(np.linalg.norm(S[:8]), rel=1e-5)


def test_a_matrix_that_is_only_multiplied_with() -> None:
    W = np.random.default_rng(4).standard_normal((250, 190))
    lazy = aslinearoperator(W)
    for dense in (16, 1024):
        np.testing.assert_allclose(top_singular(lazy, 4, dense=dense).S, np.linalg.svd(W)[1][:4], rtol=1e-5)
    U, V = np.eye(250, 5), np.eye(190, 5)
    assert projection_norm(U, lazy, V) == pytest.approx(np.linalg.norm(W[:5, :5]), rel=1e-10)
    assert random_projection(lazy, 5) == pytest.approx(random_projection(W, 5))


@pytest.mark.parametrize("rank", [4, 40, 50])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_matrix_of_low_rank(rank: int, zeros: bool, precision: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an adapter that is merged: directions run out, be it but for rounding or exactly, before r are found."""
    rng = np.random.default_rng(5)
    W = np.zeros((420, 430))
    if zeros:
        W[np.ix_(rng.permutation(420)[:rank], rng.permutation(430)[:rank])] = rng.integers(-3, 4, (rank, rank))
    else:
        W = rng.standard_normal((420, rank)) @ rng.standard_normal((rank, 430))
    monkeypatch.setattr(amplification_module, "_whole", lambda W, r: pytest.fail("the iteration gave up"))
    found = top_singular(W.astype(precision), 60, dense=16)
    scale = np.linalg.norm(W)
    np.testing.assert_allclose(found.S, np.linalg.svd(W, compute_uv=False)[:60], atol=1e-6 * scale)
    np.testing.assert_allclose((found.U * found.S) @ found.Vh, W, atol=1e-5 * scale)
    for basis in (found.U, found.Vh.T):
        np.testing.assert_allclose(basis.T @ basis, np.eye(60), atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 16), st.integers(1, 16), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_phi_needs_the_nested_subspaces_alone(dim: int, r_a: int, r_b: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = (random_directions(dim, min(r, dim), rng) for r in (r_a, r_b))
    turn = ortho_group.rvs(dim, random_state=seed % 2**31)
    signs = rng.choice([-1.0, 1.0], v.shape[1])
    np.testing.assert_allclose(phi(turn @ u, turn @ v * signs), phi(u, v), atol=1e-10)


def test_the_cheap_baseline_is_the_gaussian_one() -> None:
    cheap, gaussian = random_baseline(9, 3, 12, draws=3000), gaussian_baseline(9, 3, 12, draws=3000)
    i, j = np.ogrid[1:10, 1:4]
    np.testing.assert_allclose(cheap.mean, np.maximum(i, j) / 12, atol=0.02)
    for ours, theirs in zip(cheap[1:4], gaussian[1:4], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.05)
