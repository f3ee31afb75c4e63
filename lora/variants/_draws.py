"""Starts that are drawn without a look at W0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lora.variants import Start

Draw = Callable[[Tensor], object]  # fills a matrix, in place


class Drawn(Start):
    """A, then B, each filled by a function, or 0 where there is none."""

    def __init__(self, module: str, A: Draw | None = None, B: Draw | None = None) -> None:
        super().__init__(module)
        self._draws = A, B

    def start(self, w0: Tensor, r: int, scaling: float, given: Tensor | None) -> tuple[Tensor, Tensor]:
        d, k = w0.shape
        A, B = torch.zeros(r, k), torch.zeros(d, r)
        for matrix, draw in zip((A, B), self._draws, strict=True):
            if draw is not None:
                draw(matrix)
        return A.to(w0.device), B.to(w0.device)


def normal(matrix: Tensor) -> None:
    """N(0, 1/n) for n columns: a row has norm 1 on average, whatever the width."""
    torch.nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)
