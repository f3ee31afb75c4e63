"""||U^T W V||_F, the amplification factor of Section 7.3, and the top singular vectors of a large W."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from scipy.linalg import cholesky, eigh, solve_triangular

from analysis.maths.svd import SVD, Array, qr, random_directions

DENSE = 1024  # min(d, k) up to which a whole SVD is fast
BLOCK = 32  # directions that go through W at once: fewer need fewer products in all, but such products are slower


class Matrix(Protocol):
    """What is asked of W (d, k): an array, a scipy LinearOperator, or anything else with shape, dtype, .T and @."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> DTypeLike: ...  # noqa: D102
    @property
    def T(self) -> Any: ...  # noqa: D102, N802
    def __matmul__(self, other: Any, /) -> Any: ...


def projection_norm(U: Array, W: Matrix, V: Array) -> float:
    """||U^T W V||_F, with U (d, r) and V (k, r), by two thin products, the first in W's own precision.

    What of W lies in the directions of U and V (paper, Section 7.3 and Table 7, where V^T is what is V here).
    """
    return float(np.linalg.norm(U.T @ (W @ V.astype(W.dtype))))


def amplification(norm_delta_w: float, projection: float) -> float:
    """The amplification factor ||delta_w||_F / ||U^T W V||_F, U and V the singular vectors of delta_w (Section 7.3)."""
    return norm_delta_w / projection


class Chance(NamedTuple):
    """||U^T W V||_F for random orthonormal U and V: its mean, and the interval that holds 95% of draws."""

    mean: float
    low: float
    high: float


def random_projection(W: Matrix, r: int, draws: int = 100, seed: int = 0) -> Chance:
    """`projection_norm` of W (d, k) for random directions (the random column of Table 7)."""
    d, k = W.shape
    rng = np.random.default_rng(seed)
    norms = [projection_norm(random_directions(d, r, rng), W, random_directions(k, r, rng)) for _ in range(draws)]
    return Chance(float(np.mean(norms)), *np.quantile(norms, (0.025, 0.975)).tolist())


def expected_projection(norm_w: float, shape: tuple[int, int], r: int) -> float:
    """The root of the mean of ||U^T W V||_F^2 over random directions: r ||W||_F / sqrt(d k), exactly."""
    return float(r * norm_w / np.sqrt(shape[0] * shape[1]))


def top_singular(W: Matrix, r: int, tol: float = 1e-4, dense: int = DENSE, seed: int = 0) -> SVD:
    """The top r singular triplets of W (d, k).

    Where min(d, k) is at most `dense`, or not much above r, they are those of a whole SVD. Else a block Krylov method
    (Golub and Underwood 1977; Musco and Musco 2015): an orthonormal basis of G, W W^T G, (W W^T)^2 G, … for a random G
    of BLOCK columns, and the best triplets in it. It grows until ||W v - s u|| is at most tol * s_1 for every triplet.
    Singular values are then off by about tol^2, relative to their gaps. Plain subspace iteration (randomized_svd of
    scikit-learn) takes ten times as many products where singular values lie close, as they do in a random matrix, and
    Lanczos with single vectors (svds of scipy) is slow where W does not fit into the cache. Products are computed in
    W's precision, the small problem in fp64. Triplets with singular values below about 1e-7 s_1 (1e-3 s_1 for W in
    fp32) are lost in rounding.
    """
    d, k = W.shape
    if d > k:
        U, S, Vh = top_singular(W.T, r, tol, dense, seed)
        return SVD(Vh.T, S, U.T)
    if d <= max(dense, 4 * (r + BLOCK)):
        return _whole(W, r)
    rng = np.random.default_rng(seed)
    block, R = qr(_times(W, rng.standard_normal((k, BLOCK)).astype(W.dtype)))
    basis = np.empty((d, 4 * r + BLOCK), block.dtype, order="F")
    gram, check = np.empty((0, 0)), 2 * r  # gram: basis^T W W^T basis, block-tridiagonal; R: the block below its last
    while (used := len(gram) + BLOCK) <= d // 2:
        if used > basis.shape[1]:
            basis = np.asfortranarray(np.hstack([basis, np.empty_like(basis)]))
        basis[:, used - BLOCK : used] = block
        image = _transposed_times(W, block)
        gram = np.pad(gram, (0, BLOCK))
        gram[-BLOCK:, -BLOCK:] = image.T @ image
        if used > BLOCK:
            gram[-BLOCK:, -2 * BLOCK : -BLOCK], gram[-2 * BLOCK : -BLOCK, -BLOCK:] = R, R.T
        # What is zero but for rounding, as for W of low rank, has no directions: it is given some.
        noise = np.finfo(block.dtype).eps * gram.max() / np.sqrt(d) * rng.standard_normal(block.shape)
        block = _times(W, image) + noise.astype(block.dtype)
        block, R = qr(block - _projected(basis[:, :used], block))
        # Once leaves rounding errors that grow from step to step. Nearly orthonormal as it is, Cholesky's R will do.
        block -= _projected(basis[:, :used], block)
        factor = cholesky(block.T @ block)
        block, R = solve_triangular(factor, block.T, trans="T").T, factor @ R
        if used >= check:
            squares, y = eigh(gram, subset_by_index=[used - r, used - 1])
            S = np.sqrt(np.maximum(squares, 0))
            rounding = 10 * np.finfo(basis.dtype).eps * S[-1]
            if (np.linalg.norm(R @ y[-BLOCK:], axis=0) <= S[-1] * np.maximum(tol * S, rounding)).all():
                return _within(W, _times(basis[:, :used], y.astype(basis.dtype)))
            check = used + used // 8
    return _whole(W, r)


def _times(W: Matrix, block: NDArray[Any]) -> NDArray[Any]:
    """W @ block, by torch where W is an array: faster than numpy for so few columns."""
    if isinstance(W, np.ndarray):
        return (torch.from_numpy(W) @ torch.from_numpy(block)).numpy()
    return np.asarray(W @ block)


def _transposed_times(W: Matrix, block: NDArray[Any]) -> NDArray[Any]:
    """W.T @ block, as `_times`."""
    return _times(block.T, W).T if isinstance(W, np.ndarray) else np.asarray(W.T @ block)


def _projected(basis: NDArray[Any], block: NDArray[Any]) -> NDArray[Any]:
    """What of a block lies in the span of a basis."""
    return _times(basis, _times(basis.T, block))


def _within(W: Matrix, directions: Array) -> SVD:
    """The singular triplets of W with U in the span of `directions` (d, r)."""
    Q = qr(directions.astype(np.float64))[0]
    P, R = qr(_transposed_times(W, Q.astype(W.dtype)).astype(np.float64))
    v, S, uh = np.linalg.svd(R)
    return SVD(Q @ uh.T, S, (P @ v).T)


def _whole(W: Matrix, r: int) -> SVD:
    dense = np.asarray(W if isinstance(W, np.ndarray) else W @ np.eye(W.shape[1], dtype=W.dtype), dtype=np.float64)
    U, S, Vh = np.linalg.svd(dense, full_matrices=False)
    return SVD(U[:, :r], S[:r], Vh[:r])
