"""Where A and B start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lora import lora_ga, pissa


def start(init: str, w0: Tensor, r: int, scaling: float, gradient: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r) in fp32 for W0 (d, k). But for `both_gaussian`, training starts at the pretrained model.

    `gaussian`: A ~ N(0, 1/k): a row of A has norm 1 on average, whatever the width; B = 0 (Hu et al. 2021, section 4.1,
        which says only Gaussian).
    `kaiming`: A ~ U(-1/sqrt(k), 1/sqrt(k)), what loralib and peft draw; B = 0.
    `gaussian_b`: the other way round, A = 0 and B ~ N(0, 1/r) (Init[B] of Hayou et al. 2024, arXiv 2406.08447).
    `both_gaussian`: A and B as each of these draws it, so that B A is noise on top of W0.
    `both_zero`: A = B = 0, a saddle: dL/dA = s B^T G and dL/dB = s G A^T are zero, and stay so.
    `orthogonal`: A has orthonormal rows; B = 0.
    `pissa`, `lora_ga`: see these modules; the base weight is to become W0 - scaling * B A. Not here: `lora.loftq`,
        which finds A and B together with a quantised base weight.

    Drawn on the CPU, so that a seed gives the same start on every device. Raises InputError as `lora_ga.start`.
    """
    if init == "pissa":
        return pissa.start(w0, r, scaling)
    if init == "lora_ga":
        return lora_ga.start(gradient, r)
    d, k = w0.shape
    A, B = torch.zeros(r, k), torch.zeros(d, r)
    if init in ("gaussian", "both_gaussian"):
        nn.init.normal_(A, std=k**-0.5)
    if init in ("gaussian_b", "both_gaussian"):
        nn.init.normal_(B, std=r**-0.5)
    if init == "kaiming":
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    if init == "orthogonal":
        nn.init.orthogonal_(A)
    return A.to(w0.device), B.to(w0.device)
