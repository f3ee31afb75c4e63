"""LoftQ: quantised weights and B A that are found together, their sum near W (Li et al. 2023, arXiv 2310.08659).

    min ||W - Q - s B A||_F      for t = 1 … T:      Q_t = q(W - s B_{t-1} A_{t-1})
                                                     s B_t A_t = the best approximation of rank r to W - Q_t

(algorithm 1, from B_0 A_0 = 0), where q(W) is what the codes of a quantised layer stand for. T = 1 is the SVD of the
residual W - q(W), under the layer as it was. A and B get the root of the singular values each, as in PiSSA.

A step can lead away from W, as q(W) need not be the nearest to W in this norm: unlike the paper, which takes the last
of the T, this takes the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lora import pissa, quantized
from lora.config import InputError

STEPS = 5  # the paper's T


class Block(NamedTuple):
    """One update: of the rows `rows` of W, of rank r, in front of B A the factor `scaling`."""

    rows: slice | Tensor
    r: int
    scaling: float


@torch.no_grad()
def start(
    base: nn.Module, pretrained: Tensor | None, blocks: Sequence[Block], steps: int = STEPS
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A quantised layer as `base`, of the Q_t that comes nearest in `steps` steps, and for each block its A (r, k) and
    B (d, r), fp32. `pretrained` is W (d, k), before any quantisation.

    Raises InputError if it is not given.
    """
    if pretrained is None:
        raise InputError("init loftq starts from the weights before quantisation: give inject `pretrained`")
    w0 = quantized.dequantize(base)
    W = pretrained.to(w0.device, torch.float32)
    low, nearest = torch.zeros_like(W), torch.inf
    for _ in range(steps):
        layer = quantized.requantize(base, W - low)
        residual = W - quantized.dequantize(layer).float()
        found = [pissa.start(residual[block.rows], block.r, block.scaling) for block in blocks]
        for block, (A, B) in zip(blocks, found, strict=True):
            low[block.rows] = block.scaling * (B @ A)
        error = (residual - low).norm().item()
        if error < nearest:
            best, nearest = (layer, found), error
    return best
