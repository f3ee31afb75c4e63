"""Singular vectors in double precision: of updates as `lora.delta` has them, of A, and of random subspaces."""

import numpy as np
from numpy.typing import ArrayLike

from lora.delta import SVD as SVD
from lora.delta import Array as Array
from lora.delta import qr as qr
from lora.delta import svd_delta_w as svd_delta_w


def right_singular_vectors(a: ArrayLike) -> Array:
    """The right singular vectors of A (r, k) as columns (k, r), the largest singular value first: the U_A of the
    paper's Section 7.2."""
    vh: Array = np.linalg.svd(np.asarray(a, dtype=np.float64), full_matrices=False)[2]
    return vh.T


def random_directions(dim: int, r: int, rng: np.random.Generator) -> Array:
    """An orthonormal basis (dim, r) of a subspace that is uniformly distributed."""
    return qr(rng.standard_normal((dim, r)))[0]
