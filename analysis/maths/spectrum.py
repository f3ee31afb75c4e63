"""How many directions an update has: ranks of a spectrum, principal angles, and intruders among W + delta_w's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh, subspace_angles

from analysis.maths.svd import SVD, Array, random_directions


def stable_rank(S: ArrayLike) -> float:
    """||delta_w||_F^2 / ||delta_w||_2^2 from the singular values S: 1 for one direction, n for n equal ones."""
    squares = np.square(np.asarray(S, dtype=np.float64))
    return float(squares.sum() / squares.max())


def effective_rank(S: ArrayLike) -> float:
    """exp of the entropy of S / sum(S), the singular values as shares (Roy and Vetterli 2007): 1 for one direction, n
    for n equal ones."""
    shares = np.asarray(S, dtype=np.float64)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def energy_rank(S: ArrayLike, share: float) -> int:
    """The smallest k whose k largest singular values have at least this share of the squared Frobenius norm."""
    kept = np.square(np.sort(np.asarray(S, dtype=np.float64))[::-1]).cumsum()
    return int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12)) + 1)


class Angles(NamedTuple):
    """Between two subspaces: the smallest principal angle, in degrees, and `shared`, the mean squared cosine of all of
    them, which is phi at the subspaces' dimensions."""

    smallest: float
    shared: float


def principal_angles(first: Array, second: Array) -> Angles:
    """Between the spans of the columns of two matrices (n, r_1), (n, r_2)."""
    angles = subspace_angles(first, second)
    return Angles(float(np.degrees(angles.min())), float(np.square(np.cos(angles)).mean()))


class AnglesChance(NamedTuple):
    """`Angles` between random subspaces: means, and the ends of the intervals that hold 95% of draws."""

    smallest: float
    smallest_low: float
    smallest_high: float
    shared: float
    shared_low: float
    shared_high: float


def random_angles(dim: int, r_1: int, r_2: int, draws: int = 400, seed: int = 0) -> AnglesChance:
    """`principal_angles` of random subspaces of `dim` dimensions; the exact mean of `shared` is max(r_1, r_2) / dim."""
    rng = np.random.default_rng(seed)
    fixed = np.eye(dim, r_1)  # one of the two may be any: what counts is how they lie to each other
    drawn = np.array([principal_angles(fixed, random_directions(dim, r_2, rng)) for _ in range(draws)])
    (low, high), mean = np.quantile(drawn, (0.025, 0.975), axis=0), drawn.mean(axis=0)
    return AnglesChance(mean[0], low[0], high[0], mean[1], low[1], high[1])


def random_turned(svd: SVD, rng: np.random.Generator) -> SVD:
    """An update with the same singular values, and so the same norm and rank, in random directions."""
    (d, r), k = svd.U.shape, svd.Vh.shape[1]
    return SVD(random_directions(d, r, rng), svd.S, random_directions(k, r, rng).T)


def top_directions(M: Array, n: int) -> tuple[Array, Array]:
    """The top n left (d, n) and right (k, n) singular vectors of M (d, k), from the eigenvectors of M M^T, or of M^T M
    if that is smaller. Their singular values must not be below about 1e-7 of the largest."""
    if M.shape[0] > M.shape[1]:
        right, left = top_directions(M.T, n)
        return left, right
    d = M.shape[0]
    _, vectors = eigh(M @ M.T, subset_by_index=[d - n, d - 1])
    left = vectors[:, ::-1]
    right = M.T @ left
    return left, right / np.linalg.norm(right, axis=0)


def best_matches(directions: Array, basis: Array) -> Array:
    """For each column of directions (n, r) the largest |cosine| with a column of basis (n, m); all are unit vectors."""
    matches: Array = np.abs(basis.T @ directions).max(axis=0)
    return matches


def intruders(matches: ArrayLike, epsilons: Sequence[float]) -> list[int]:
    """For each epsilon how many of the top singular vectors of W + delta_w are intruder dimensions: similar to no
    singular vector of W, best match below epsilon (Shuttleworth et al. 2024, arXiv 2410.21228, Algorithm 1)."""
    values = np.asarray(matches)
    return [int((values < epsilon).sum()) for epsilon in epsilons]
