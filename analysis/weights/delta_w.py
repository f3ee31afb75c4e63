"""The update delta_w of one module: the product of two factors, which is never formed, or a difference of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from torch import Tensor

from analysis.maths.amplification import top_singular
from analysis.maths.svd import SVD, Array, svd_delta_w
from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from lora.config import InputError


class Update(ABC):
    """The update delta_w (d, k) of one weight type in one module; what it is made of is read when asked for.

    `rank` is that of the factors, None for a dense difference. `weight_type` is that of `Weights.matrix`.
    """

    rank: int | None

    def __init__(self, site: Site, module: str, weight_type: str, shape: tuple[int, int]) -> None:
        self.site, self.module, self.weight_type, self.shape = site, module, weight_type, shape

    @abstractmethod
    def svd(self, k: int | None = None) -> SVD:
        """A thin SVD: the top k triplets, or (None) all that there are."""

    @abstractmethod
    def norm(self) -> float:
        """||delta_w||_F."""

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """delta_w x for x (k, n): (d, n)."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many numbers it is stored in: those of A and B, or of the matrix."""


class LowRank(Update):
    """delta_w = scaling * B A. `read` gives A (rank, k) and B (d, rank); `w_norm` is ||W||_F, as far as it is known."""

    def __init__(
        self,
        site: Site,
        module: str,
        weight_type: str,
        shape: tuple[int, int],
        rank: int,
        scaling: float,
        read: Callable[[], tuple[Tensor, Tensor]],
        w_norm: float | None = None,
    ) -> None:
        super().__init__(site, module, weight_type, shape)
        self.rank: int = rank
        self.scaling, self.w_norm, self._read = scaling, w_norm, read

    def factors(self) -> tuple[Array, Array]:
        """A (rank, k) and scaling * B (d, rank). Raises InputError if the file is damaged."""
        A, B = (matrix.double().numpy() for matrix in self._read())
        return A, self.scaling * B

    def svd(self, k: int | None = None) -> SVD:  # noqa: D102 (as in Update)
        U, S, Vh = svd_delta_w(*self.factors())
        return SVD(U[:, :k], S[:k], Vh[:k])

    def norm(self) -> float:  # noqa: D102
        # Not from B^T B and A A^T: squares lose what is left of two halves that cancel, as after a PiSSA start.
        return float(np.linalg.norm(self.svd().S))

    def apply(self, x: Array) -> Array:  # noqa: D102
        A, B = self.factors()
        return B @ (A @ x)

    @property
    def parameters(self) -> int:  # noqa: D102
        return self.rank * sum(self.shape)


class Difference(Update):
    """delta_w = W' - W of a fine-tuned model and its base, both read when it is asked for."""

    rank = None

    def __init__(self, site: Site, module: str, weight_type: str, tuned: Weights, base: Weights) -> None:
        super().__init__(site, module, weight_type, base.shape(module, weight_type))
        self._tuned, self._base = tuned, base

    def matrix(self) -> Array:
        """delta_w (d, k). Raises InputError if one of the two is missing or damaged."""
        tuned, base = (weights.matrix(self.module, self.weight_type) for weights in (self._tuned, self._base))
        if tuned.shape != base.shape:
            raise InputError(
                f"{self._tuned.source} is not a tuned {self._base.source}: {self.module} is {tuple(tuned.shape)} in "
                f"one and {tuple(base.shape)} in the other"
            )
        return (tuned.double() - base.double()).numpy()

    def svd(self, k: int | None = None) -> SVD:  # noqa: D102
        delta = self.matrix()
        if k is not None and delta.any():
            return top_singular(delta, min(k, *self.shape))
        U, S, Vh = np.linalg.svd(delta, full_matrices=False)
        return SVD(U[:, :k], S[:k], Vh[:k])

    def norm(self) -> float:  # noqa: D102
        return float(np.linalg.norm(self.matrix()))

    def apply(self, x: Array) -> Array:  # noqa: D102
        return self.matrix() @ x

    @property
    def parameters(self) -> int:  # noqa: D102
        return self.shape[0] * self.shape[1]


def inner(first: Update, second: Update) -> float:
    """<delta_w, delta_w'> = tr(delta_w^T delta_w'), with only the small products where one is low-rank."""
    if isinstance(first, Difference) and isinstance(second, Difference):
        return float(np.vdot(first.matrix(), second.matrix()))
    low, other = (first, second) if isinstance(first, LowRank) else (second, first)
    assert isinstance(low, LowRank)
    A, B = low.factors()
    return float(np.vdot(other.apply(A.T), B))
