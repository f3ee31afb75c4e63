"""Where A and B start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def start(init: str, d: int, k: int, r: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r) in fp32, with B = 0 so that training starts at the pretrained model (paper, section 4.1).

    `gaussian`: A ~ N(0, 1/k): a row of A has norm 1 on average, whatever the width; the paper says only Gaussian.
    `kaiming`: A ~ U(-1/sqrt(k), 1/sqrt(k)), what loralib and peft draw.
    Drawn on the CPU, so that a seed gives the same start on every device.
    """
    A = torch.empty(r, k)
    if init == "gaussian":
        nn.init.normal_(A, std=k**-0.5)
    else:
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    return A.to(device), torch.zeros(d, r, device=device)
