"""The update of one linear module of a checkpoint, in fp32, and its top singular triplets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.maths.amplification import top_singular
from analysis.maths.svd import SVD
from analysis.weights.pairs import Pair
from lora.config import InputError
from lora.targets import WHOLE

PART = 1 << 22  # numbers of each of the two weights that are in fp32 at once


class Delta(NamedTuple):
    """delta_w (d, k) = W' - W, fp32; the squared norms of it and of W."""

    matrix: NDArray[np.float32]
    energy: float
    energy_base: float

    def top(self, rank: int, tolerance: float) -> SVD:
        """The top singular triplets, each to a residual of `tolerance` of the largest singular value. What they hold
        of the energy is less than what the exact ones hold by no more than about tolerance^2 each. Of a matrix of
        zeros they are zero."""
        if not self.energy:
            d, k = self.matrix.shape
            return SVD(np.zeros((d, rank)), np.zeros(rank), np.zeros((rank, k)))
        return top_singular(self.matrix, min(rank, *self.matrix.shape), tolerance, dense=0)


def delta(pair: Pair, module: str) -> Delta:
    """The update of a module that both have: from the two files, some rows at a time, so that it is the one matrix in
    memory. Differences of 16-bit weights are exact.

    Raises InputError if the two have other shapes, or one of them is damaged, quantised, or holds NaN.
    """
    new, old = (weights.as_loaded(module, WHOLE) for weights in (pair.tuned, pair.base))
    if new.shape != old.shape:
        raise InputError(
            f"{pair.tuned.source} is of another model than {pair.base.source}: {module} is {tuple(new.shape)} in one "
            f"and {tuple(old.shape)} in the other"
        )
    found, energy, energy_base = torch.empty(new.shape), 0.0, 0.0
    step = max(1, PART // new.shape[1])
    for first in range(0, len(new), step):
        rows = slice(first, first + step)
        w0 = old[rows].float()
        torch.sub(new[rows].float(), w0, out=found[rows])
        energy += _energy(found[rows])
        energy_base += _energy(w0)
    return Delta(found.numpy(), energy, energy_base)


def _energy(rows: torch.Tensor) -> float:
    return float(rows.double().square().sum())
