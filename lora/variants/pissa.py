"""PiSSA: A and B start as the principal part of W0; what is left of it is frozen (Meng et al. 2024, arXiv 2404.02948).

    W0 = U S V^T      A = sqrt(S_r) V_r^T / sqrt(s)      B = U_r sqrt(S_r) / sqrt(s)

so that s B A is the best approximation of W0 of rank r, and the base weight becomes the residual W0 - s B A.
The paper has s = 1; the division makes it the same start for any s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora.variants._residual import Residual


def principal(w0: Tensor, r: int, scaling: float) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r), fp32, from W0 (d, k)."""
    U, S, Vh = torch.linalg.svd(w0.float(), full_matrices=False)
    root = (S[:r] / scaling).sqrt()
    return root[:, None] * Vh[:r], U[:, :r] * root


class _PiSSA(Residual):
    def start(self, w0: Tensor, r: int, scaling: float, given: Tensor | None) -> tuple[Tensor, Tensor]:
        return principal(w0, r, scaling)


VARIANT = _PiSSA(__name__)
