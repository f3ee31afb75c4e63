"""One adapted layer: a frozen base module plus low-rank updates of all, or of some, of its output rows."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from lora.config import InputError
from lora.init import start


def adaptable(module: nn.Module) -> bool:
    """Linear, Conv1D or Embedding in floating point, as long as h = W0 x + bias is what it computes.

    Embedding's subclasses compute something else (Gemma's scales its output), and the output projection of
    nn.MultiheadAttention is never called: only its weight is read.
    """
    linear = isinstance(module, nn.Linear | Conv1D) and not isinstance(module, NonDynamicallyQuantizableLinear)
    return (linear or type(module) is nn.Embedding) and cast(Tensor, module.weight).is_floating_point()


class Part(NamedTuple):
    """One low-rank update. `rows`: which outputs it changes, as a slice or an index tensor.

    In a fused projection (GPT-2's c_attn) the weight type q is one Part whose rows are the q third.
    """

    name: str
    r: int
    scaling: float
    rows: slice | Tensor = slice(None)


def turned(base: nn.Module, weight: Tensor) -> Tensor:
    """A weight of `base` as the (d, k) matrix of h = W0 x, or back again: only Linear stores it so. A view.

    An embedding's x is one-hot, so that k is the size of the vocabulary.
    """
    return weight if isinstance(base, nn.Linear) else weight.T


class LoRALayer(nn.Module):
    """h = W0 x + bias + sum over parts of scaling * B A x on the part's rows (Hu et al. 2021, eq. 3).

    x (..., k) -> h (..., d); for an embedding x holds indices. A (r, k) and B (rows, r) are kept in fp32 and used in
    x's precision. W0 is never written: `merge` swaps in a new weight, `unmerge` swaps the old one back, so W0 is back
    bit for bit, and a weight tied to another module is not changed there. Dropout acts on x; an embedding has none.

    Raises InputError if a rank is above min(d, k), or if the base module is of a kind that cannot be adapted.
    """

    def __init__(self, base: nn.Module, parts: tuple[Part, ...], dropout: float = 0.0, init: str = "gaussian") -> None:
        super().__init__()
        if not adaptable(base):
            raise InputError(f"cannot adapt a {type(base).__name__}: only Linear, Conv1D, Embedding in floating point")
        self.base = base
        self.parts = parts
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.kept: tuple[nn.Parameter, ...] = ()  # W0 while merged; the tuple keeps it out of this module's parameters
        for part in parts:
            d, k = self.w0(part).shape
            if not 1 <= part.r <= min(d, k):
                raise InputError(f"rank r = {part.r} for {part.name}: it must be between 1 and min(d, k) = {min(d, k)}")
            if isinstance(part.rows, Tensor):
                self.register_buffer(f"rows_{part.name}", part.rows, persistent=False)
            A, B = start(init, d, k, part.r, self.weight.device)
            self.lora_A[part.name], self.lora_B[part.name] = nn.Parameter(A), nn.Parameter(B)

    @property
    def merged(self) -> bool:
        """True between `merge` and `unmerge`."""
        return bool(self.kept)

    @property
    def weight(self) -> nn.Parameter:
        """The base module's weight: some models read `linear.weight` (T5 looks at its dtype)."""
        return cast(nn.Parameter, self.base.weight)

    def w0(self, part: Part) -> Tensor:
        """The pretrained weight (d, k) under one part, merged or not."""
        return turned(self.base, (self.kept[0] if self.merged else self.weight).detach())[part.rows]

    def _rows(self, part: Part) -> slice | Tensor:
        return getattr(self, f"rows_{part.name}") if isinstance(part.rows, Tensor) else part.rows

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (the class says it)
        h: Tensor = self.base(x)
        if self.merged:
            return h
        for part in self.parts:
            A, B = self.lora_A[part.name], self.lora_B[part.name]
            if isinstance(self.base, nn.Embedding):
                low = functional.embedding(x, A.T, self.base.padding_idx).to(h.dtype)
            else:
                low = functional.linear(self.dropout(x), A.to(x.dtype))
            update = functional.linear(low, (part.scaling * B).to(low.dtype))
            if update.shape == h.shape:
                h = h + update
            else:
                h[..., self._rows(part)] += update
        return h

    def delta_w(self, name: str) -> Tensor:
        """delta_w = scaling * B A of one part, (rows, k), fp32."""
        scaling = next(part.scaling for part in self.parts if part.name == name)
        return scaling * cast(Tensor, self.lora_B[name] @ self.lora_A[name])

    @torch.no_grad()
    def merge(self) -> None:
        """Put W0 + delta_w, summed in fp32, in W0's place (paper, section 4.1: no extra latency). Idempotent."""
        if self.merged:
            return
        weight = self.weight
        total = weight.to(torch.float32, copy=True)
        for part in self.parts:
            turned(self.base, total)[self._rows(part)] += self.delta_w(part.name)
        self.kept, self.base.weight = (weight,), nn.Parameter(total.to(weight.dtype), weight.requires_grad)

    def unmerge(self) -> None:
        """Put W0 itself back. Idempotent."""
        if self.merged:
            (self.base.weight,), self.kept = self.kept, ()

    def extra_repr(self) -> str:  # noqa: D102 (as in nn.Module)
        return ", ".join(f"{part.name}: r={part.r}, scaling={part.scaling:g}" for part in self.parts)
