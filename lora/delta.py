"""Low-rank updates delta_w = s B A: with the least rank, and their SVD in double precision, no d x k matrix formed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]


class SVD(NamedTuple):
    """A thin SVD: U (d, r) with orthonormal columns, S (r,) in falling order, Vh (r, k) with orthonormal rows."""

    U: Array
    S: Array
    Vh: Array


def qr(matrix: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Q (d, r) and R (r, r) of a tall matrix (d, r), in its precision, by torch, which is faster at it than numpy."""
    import torch  # seconds that tables which need no SVD should not cost

    Q, R = torch.linalg.qr(torch.tensor(matrix))
    return Q.numpy(), R.numpy()


def svd_delta_w(a: ArrayLike, b: ArrayLike, scaling: float = 1.0) -> SVD:
    """SVD of delta_w = scaling * B A from A (r, k) and B (d, r), in O((d + k) r^2) time and O((d + k) r) memory.

    With B = Q_b R_b and A^T = Q_a R_a, delta_w = Q_b (scaling R_b R_a^T) Q_a^T, and the SVD of the r x r core is
    rotated outwards. Where r exceeds min(d, k), only min(d, k) triplets exist and are returned. Singular vectors of
    singular values that are zero (B untrained) are an arbitrary orthonormal completion.
    """
    q_b, r_b = qr(np.asarray(b, dtype=np.float64))
    q_a, r_a = qr(np.asarray(a, dtype=np.float64).T)
    u, s, vh = np.linalg.svd(scaling * (r_b @ r_a.T), full_matrices=False)
    return SVD(q_b @ u, s, vh @ q_a.T)


def smallest(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r) of the same product B A with r at most min(d, k): above it one of the two becomes the
    identity and the other the whole product."""
    (d, r), k = B.shape, A.shape[1]
    if r <= min(d, k):
        return A, B
    identity = A.new_zeros(min(d, k), min(d, k)).fill_diagonal_(1)
    return (B @ A, identity) if d <= k else (identity, B @ A)
