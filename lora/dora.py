"""DoRA: weight-decomposed low-rank adaptation (Liu et al. 2024, arXiv 2402.09353, eq. 5).

    W' = m * V / ||V||_c      V = W0 + s B A      m starts at ||W0||_c

with one magnitude m and one norm for each output: for each row of W0 (d, k), what the paper writes as a column of W^T.
In the backward pass ||V||_c is a constant (section 4.3). With g = m / ||V||_c

    h = W' x + bias = W0 x + bias + (g - 1) W0 x + g s B A x
"""

from __future__ import annotations

import torch
from torch import Tensor

from lora.config import InputError


def start(w0: Tensor) -> Tensor:
    """m (d,), fp32: the norm of each row of W0 (d, k). Raises InputError for a row of zeros, which has no direction."""
    m = torch.linalg.vector_norm(w0.float(), dim=1)
    if not m.all():
        raise InputError("DoRA needs a direction for every row of W0, but some rows are zero: use plain LoRA here")
    return m


def ratio(w0: Tensor, A: Tensor, B: Tensor, scaling: float, m: Tensor) -> Tensor:
    """g = m / ||V||_c (d,), in the precision of m. Its only gradient is that of m."""
    with torch.no_grad(), torch.autocast(w0.device.type, enabled=False):
        norm = torch.linalg.vector_norm(w0.to(m.dtype) + scaling * (B @ A), dim=1)
    return m / norm


def delta_w(w0: Tensor, A: Tensor, B: Tensor, scaling: float, m: Tensor) -> Tensor:
    """W' - W0 (d, k), in the precision of m."""
    w0 = w0.to(m.dtype)
    return ratio(w0, A, B, scaling, m)[:, None] * (w0 + scaling * (B @ A)) - w0
