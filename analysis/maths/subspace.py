"""Subspace similarity phi of Section 7.2 and its value between random subspaces."""

from typing import NamedTuple

import numpy as np

from analysis.maths.svd import Array, random_directions, right_singular_vectors


def phi(u_a: Array, u_b: Array) -> Array:
    """phi(i, j) = ||U_A^(i)T U_B^(j)||_F^2 / min(i, j) for all i and j at once (paper, Section 7.2, eq. 4).

    u_a (n, r_a) and u_b (n, r_b) have orthonormal columns, the most important first. Returns (r_a, r_b), element
    [i - 1, j - 1] in [0, 1]: 0 where the top-i and top-j subspaces are orthogonal, 1 where one holds the other.
    Raises ValueError if the two do not live in the same space.
    """
    if u_a.shape[0] != u_b.shape[0]:
        raise ValueError(f"phi compares directions of one space, got dimensions {u_a.shape[0]} and {u_b.shape[0]}")
    overlap = np.square(u_a.T @ u_b).cumsum(axis=0).cumsum(axis=1)
    i, j = np.ogrid[1 : u_a.shape[1] + 1, 1 : u_b.shape[1] + 1]
    # Rounding can put identical subspaces a few ulp above 1.
    return np.minimum(overlap / np.minimum(i, j), 1.0)


class Baseline(NamedTuple):
    """phi between independent random subspaces of a space of `dim` dimensions: grids (r_a, r_b) of the mean and of the
    95% interval over draws, and `draw`, the first draw, which is what the paper's Figure 4 shows."""

    dim: int
    mean: Array
    low: Array
    high: Array
    draw: Array


def gaussian_phi(r_a: int, r_b: int, dim: int, rng: np.random.Generator) -> Array:
    """phi between the right singular vectors of two Gaussian matrices, (r_a, dim) and (r_b, dim): one draw."""
    first, second = (right_singular_vectors(rng.standard_normal((r, dim))) for r in (r_a, r_b))
    return phi(first, second)


def gaussian_baseline(r_a: int, r_b: int, dim: int, seed: int = 0, draws: int = 400) -> Baseline:
    """The mean of `gaussian_phi` over `draws` draws and, for each (i, j), the interval that holds 95% of them.

    The exact mean is max(i, j) / dim. A measured phi above `high` occurs by chance in one comparison out of 40.
    """
    rng = np.random.default_rng(seed)
    grids = np.stack([gaussian_phi(r_a, r_b, dim, rng) for _ in range(draws)])
    low, high = np.quantile(grids, (0.025, 0.975), axis=0)
    return Baseline(dim, grids.mean(axis=0), low, high, grids[0])


def random_baseline(r_a: int, r_b: int, dim: int, seed: int = 0, draws: int = 200) -> Baseline:
    """`gaussian_baseline` at the cost of one thin QR a draw, for large r_a: phi depends on how the two subspaces lie to
    each other alone, so that one of them may be that of the first coordinates."""
    rng = np.random.default_rng(seed)
    axes = np.eye(dim, r_a)
    grids = np.stack([phi(axes, random_directions(dim, r_b, rng)) for _ in range(draws)])
    low, high = np.quantile(grids, (0.025, 0.975), axis=0)
    return Baseline(dim, grids.mean(axis=0), low, high, grids[0])
