"""LoftQ: quantised weights and B A that are found together, their sum near W (Li et al. 2023, arXiv 2310.08659).

    min ||W - Q - s B A||_F      for t = 1 … T:      Q_t = q(W - s B_{t-1} A_{t-1})
                                                     s B_t A_t = the best approximation of rank r to W - Q_t

(algorithm 1, from B_0 A_0 = 0), where q(W) is what the codes of a quantised layer stand for. T = 1 is the SVD of the
residual W - q(W), under the layer as it was. A and B get the root of the singular values each, as in PiSSA.

A step can lead away from W, as q(W) need not be the nearest to W in this norm: unlike the paper, which takes the last
of the T, this takes the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lora import quantized
from lora.errors import InputError
from lora.variants import Backward, Start, Weights
from lora.variants.pissa import principal

if TYPE_CHECKING:
    from lora.layer import Part

STEPS = 5  # the paper's T


class _LoftQ(Start):
    """A quantised base becomes that of the Q_t which comes nearest."""

    remakes = True

    def check_base(self, base: nn.Module) -> None:
        if not quantized.is_quantized(base):
            raise InputError(
                f"init loftq starts from what quantisation loses, but this {type(base).__name__} is not quantised: "
                "quantise the model, or choose another init"
            )

    def prepare(
        self, model: nn.Module, modules: Sequence[str], backward: Backward | None, pretrained: Weights | None
    ) -> Mapping[str, Tensor]:
        return {} if pretrained is None else pretrained()

    def begin(
        self, base: nn.Module, w0: Tensor, parts: Sequence[Part], given: Tensor | None
    ) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
        if given is None:
            raise InputError("init loftq starts from the weights before quantisation: give inject `pretrained`")
        return nearest(base, given.to(w0.device, torch.float32), parts)


VARIANT = _LoftQ(__name__)


@torch.no_grad()
def nearest(
    base: nn.Module, W: Tensor, parts: Sequence[Part], steps: int = STEPS
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A quantised layer as `base`, of the Q_t that comes nearest to W (d, k), fp32, in `steps` steps, and for each part
    its A (r, k) and B (d, r), fp32. W is the weight before any quantisation."""
    low, least = torch.zeros_like(W), torch.inf
    for _ in range(steps):
        layer = quantized.requantize(base, W - low)
        residual = W - quantized.dequantize(layer).float()
        found = [principal(residual[part.rows], part.r, part.scaling) for part in parts]
        for part, (A, B) in zip(parts, found, strict=True):
            low[part.rows] = part.scaling * (B @ A)
        error = (residual - low).norm().item()
        if error < least:
            best, least = (layer, found), error
    return best
