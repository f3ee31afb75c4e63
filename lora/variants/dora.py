"""DoRA: weight-decomposed low-rank adaptation (Liu et al. 2024, arXiv 2402.09353, eq. 5).

    W' = m * V / ||V||_c      V = W0 + s B A      m starts at ||W0||_c

with one magnitude m and one norm for each output: for each row of W0 (d, k), what the paper writes as a column of W^T.
In the backward pass ||V||_c is a constant (section 4.3). With g = m / ||V||_c

    h = W' x + bias = W0 x + bias + (g - 1) W0 x + g s B A x
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

from lora.errors import InputError
from lora.variants import Peft, Start, Update, chosen

if TYPE_CHECKING:
    from lora.config import LoRAConfig
    from lora.layer import LoRALayer, Part


class _DoRA(Update):
    title = "DoRA"
    matrices_alone = True
    peft = Peft("use_dora", {"m": "lora_magnitude_vector"})

    def check(self, config: LoRAConfig) -> None:
        start = chosen(Start, config.init)
        if start.residual or start.remakes:
            raise InputError(
                f"init {config.init} is not for DoRA, which starts at the pretrained directions: choose one"
            )

    def shapes(self, d: int, k: int, r: int) -> dict[str, tuple[int, ...]]:
        """The magnitudes m (d,)."""
        return {"m": (d,)}

    def start(self, w0: Tensor) -> dict[str, Tensor]:
        """The norm of each row of W0. Raises InputError for a row of zeros, which has no direction."""
        m = torch.linalg.vector_norm(w0.float(), dim=1)
        if not m.all():
            raise InputError("DoRA needs a direction for every row of W0, but some rows are zero: use plain LoRA here")
        return {"m": m}

    def output(self, layer: LoRALayer, part: Part, update: Tensor, x: Tensor, h: Tensor) -> Tensor:
        g = _ratio(layer, part)
        return (g - 1).to(h.dtype) * _without_bias(layer, part, x, h) + g.to(h.dtype) * update

    def delta_w(self, layer: LoRALayer, part: Part) -> Tensor:
        """W' - W0 (d, k), in the precision of m."""
        g = _ratio(layer, part)
        w0 = layer.w0(part).to(g.dtype)
        return g[:, None] * (w0 + super().delta_w(layer, part)) - w0


VARIANT = _DoRA(__name__)


def _ratio(layer: LoRALayer, part: Part) -> Tensor:
    """g = m / ||V||_c (d,), in the precision of m. Its only gradient is that of m."""
    w0, m = layer.w0(part), layer.trained(part.name)["m"]
    A, B = layer.matrices(part.name)
    with torch.no_grad(), torch.autocast(w0.device.type, enabled=False):
        norm = torch.linalg.vector_norm(w0.to(m.dtype) + part.scaling * (B @ A), dim=1)
    return m / norm


def _without_bias(layer: LoRALayer, part: Part, x: Tensor, h: Tensor) -> Tensor:
    """W0 x on the part's rows: x after dropout, as V is one matrix in DoRA; without dropout h has it already."""
    rows = layer.rows(part)
    if layer.training and layer.dropout.p > 0:
        return functional.linear(x, layer.pretrained()[rows].to(x.dtype))
    bias = cast("Tensor | None", layer.base.bias)
    return h[..., rows] - (0.0 if bias is None else bias[rows].to(h.dtype))
