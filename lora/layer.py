"""One adapted layer: a frozen base module plus low-rank updates of all, or of some, of its output rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from lora import dora, loftq, quantized
from lora.config import RESIDUAL_INITS, InputError
from lora.init import start


def adaptable(module: nn.Module) -> bool:
    """Linear, Conv1D or Embedding in floating point, or a quantised linear layer (`lora.quantized`), as long as
    h = W0 x + bias is what it computes.

    Embedding's subclasses compute something else (Gemma's scales its output), and the output projection of
    nn.MultiheadAttention is never called: only its weight is read.
    """
    if quantized.is_quantized(module):
        return True
    linear = isinstance(module, nn.Linear | Conv1D) and not isinstance(module, NonDynamicallyQuantizableLinear)
    return (linear or type(module) is nn.Embedding) and cast(Tensor, module.weight).is_floating_point()


class Part(NamedTuple):
    """One low-rank update, LoRA's or `dora`'s. `rows`: which outputs it changes, as a slice or an index tensor.

    In a fused projection (GPT-2's c_attn) the weight type q is one Part whose rows are the q third.
    """

    name: str
    r: int
    scaling: float
    rows: slice | Tensor = slice(None)
    dora: bool = False


def turned(base: nn.Module, weight: Tensor) -> Tensor:
    """A weight of `base` as the (d, k) matrix of h = W0 x, or back again: only Linear stores it so. A view.

    An embedding's x is one-hot, so that k is the size of the vocabulary.
    """
    return weight if isinstance(base, nn.Linear) else weight.T


def shape(base: Any) -> tuple[int, int]:
    """(d, k) of the weight of an adaptable module, which may be on the meta device."""
    if quantized.is_quantized(base):
        return base.out_features, base.in_features
    d, k = turned(base, base.weight).shape
    return d, k


class LoRALayer(nn.Module):
    """h = W0 x + bias + sum over parts of scaling * B A x on the part's rows (Hu et al. 2021, eq. 3).

    x (..., k) -> h (..., d); for an embedding x holds indices. A (r, k) and B (rows, r) are kept in fp32 and used in
    x's precision. W0 is never written: `merge` swaps in a new weight, `unmerge` swaps the old one back, so W0 is back
    bit for bit, and a weight tied to another module is not changed there. Dropout acts on x; an embedding has none.

    DoRA's parts replace W0 + scaling * B A as `lora.dora` says, with a trained magnitude m (rows,) in `lora_m`.
    With the starts pissa and lora_ga, `residual` is true: the base module gets the residual W0 - scaling * B0 A0, where
    A0 and B0 are the starts of A and B, so that the layer starts at W0. `gradient` is what lora_ga starts from: dL/dW0,
    of the weight's own shape.

    The base may be quantised: W0 is then what its codes stand for (QLoRA). `merge` puts a floating-point Linear in its
    place, `unmerge` itself. With the start loftq it is quantised anew, for good, and that is W0 from then on;
    `pretrained` (d, k) is the weight before any quantisation, which it starts from.

    Raises InputError if a rank is above min(d, k), if the base module is of a kind that cannot be adapted, and for the
    reasons of the variants.
    """

    def __init__(
        self,
        base: nn.Module,
        parts: tuple[Part, ...],
        dropout: float = 0.0,
        init: str = "gaussian",
        gradient: Tensor | None = None,
        pretrained: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not adaptable(base):
            raise InputError(
                f"cannot adapt a {type(base).__name__}: only Linear, Conv1D, Embedding in floating point, and linear "
                f"layers that are quantised as {', '.join(quantized.KINDS)}"
            )
        quantized.check_start(base, init)
        if isinstance(base, nn.Embedding) and (init in RESIDUAL_INITS or any(part.dora for part in parts)):
            variant = f"init {init}" if init in RESIDUAL_INITS else "DoRA"
            raise InputError(f"{variant} is for Linear and Conv1D, not for an Embedding: adapt that without it")
        self.base = quantized.check(base) if quantized.is_quantized(base) else base
        self.parts = parts
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        self.lora_m = nn.ParameterDict()
        self.merged = False  # True between `merge` and `unmerge`
        self.residual = init in RESIDUAL_INITS
        self.loftq = init == "loftq"
        # Weights that another has replaced in the base, W0 first; the tuple keeps them out of this module's parameters
        self.kept: tuple[nn.Parameter, ...] = ()
        self.kept_base: tuple[nn.Module, ...] = ()  # the quantised base, between `merge` and `unmerge`
        for part in parts:
            if isinstance(part.rows, Tensor):
                self.register_buffer(f"rows_{part.name}", part.rows, persistent=False)
        whole = self._whole().detach()
        for part in parts:
            d, k = whole[self._rows(part)].shape
            if not 1 <= part.r <= min(d, k):
                raise InputError(f"rank r = {part.r} for {part.name}: it must be between 1 and min(d, k) = {min(d, k)}")
        if self.loftq:
            blocks = [loftq.Block(self._rows(part), part.r, part.scaling) for part in parts]
            self.base, starts = loftq.start(base, pretrained, blocks)
            whole = self._whole()
        else:
            gradients = [None if gradient is None else turned(base, gradient)[self._rows(part)] for part in parts]
            starts = [
                start(init, whole[self._rows(part)], part.r, part.scaling, own)
                for part, own in zip(parts, gradients, strict=True)
            ]
        for part, (A, B) in zip(parts, starts, strict=True):
            self.lora_A[part.name], self.lora_B[part.name] = nn.Parameter(A), nn.Parameter(B)
            if part.dora:
                self.lora_m[part.name] = nn.Parameter(dora.start(whole[self._rows(part)]))
        if self.residual:
            residual = self.weight.detach().to(torch.float32, copy=True)
            for part in parts:
                A0, B0 = (side[part.name].detach().clone() for side in (self.lora_A, self.lora_B))
                self.register_buffer(f"start_A_{part.name}", A0)
                self.register_buffer(f"start_B_{part.name}", B0)
                turned(base, residual)[self._rows(part)] -= part.scaling * B0 @ A0
            self._replace(residual)

    @property
    def weight(self) -> nn.Parameter:
        """The base module's weight: some models read `linear.weight` (T5 looks at its dtype)."""
        return cast(nn.Parameter, self.base.weight)

    def w0(self, part: Part) -> Tensor:
        """The pretrained weight (d, k) under one part, whatever the base module holds."""
        return self._whole().detach()[self._rows(part)]

    def _whole(self) -> Tensor:
        """W0 (d, k), of all rows, with its gradient if it has one."""
        base = (*self.kept_base, self.base)[0]
        if quantized.is_quantized(base):
            return quantized.dequantize(base)
        return turned(base, (*self.kept, self.weight)[0])

    def _rows(self, part: Part) -> slice | Tensor:
        return getattr(self, f"rows_{part.name}") if isinstance(part.rows, Tensor) else part.rows

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 (the class says it)
        h: Tensor = self.base(x)
        if self.merged:
            return h
        for part in self.parts:
            A, B, dropped = self.lora_A[part.name], self.lora_B[part.name], x
            if isinstance(self.base, nn.Embedding):
                low = functional.embedding(x, A.T, self.base.padding_idx).to(h.dtype)
            else:
                dropped = self.dropout(x)
                low = functional.linear(dropped, A.to(x.dtype))
            update = functional.linear(low, (part.scaling * B).to(low.dtype))
            if part.dora:
                g = dora.ratio(self.w0(part), A, B, part.scaling, self.lora_m[part.name])
                update = (g - 1).to(h.dtype) * self._without_bias(dropped, h, part) + g.to(h.dtype) * update
            if update.shape == h.shape:
                h = h + update
                continue
            if quantized.is_quantized(self.base):
                h = h.clone()  # what a library's own function returns must not be written into
            h[..., self._rows(part)] += update
        return h

    def _without_bias(self, x: Tensor, h: Tensor, part: Part) -> Tensor:
        """W0 x on the part's rows: x after dropout, as V is one matrix in DoRA; without dropout h has it already."""
        rows = self._rows(part)
        if self.training and self.dropout.p > 0:
            return functional.linear(x, self._whole()[rows].to(x.dtype))
        bias = cast("Tensor | None", self.base.bias)
        return h[..., rows] - (0.0 if bias is None else bias[rows].to(h.dtype))

    def matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """A (r', k) and B (rows, r') of one part, with scaling * B A the update of the pretrained W0, fp32.

        r' = r, but after pissa and lora_ga the update is scaling * (B A - B0 A0), in [A; A0] and [B, -B0] with r' = 2r.
        Should that be above min(d, k), one of the two is the identity and the other the whole B A - B0 A0: exact, with
        r' = min(d, k). With DoRA scaling * B A is the update of W0's directions, before m scales the rows.
        """
        A, B = self.lora_A[name], self.lora_B[name]
        if not self.residual:
            return A, B
        A = torch.cat((A, self.get_buffer(f"start_A_{name}")))
        B = torch.cat((B, -self.get_buffer(f"start_B_{name}")), dim=1)
        (d, r), k = B.shape, A.shape[1]
        if r <= min(d, k):
            return A, B
        identity = torch.eye(min(d, k), dtype=A.dtype, device=A.device)
        return (B @ A, identity) if d <= k else (identity, B @ A)

    def delta_w(self, name: str) -> Tensor:
        """What one part adds to the pretrained W0, (rows, k), fp32: scaling * B A for LoRA."""
        part = next(part for part in self.parts if part.name == name)
        A, B = self.matrices(name)
        if part.dora:
            return dora.delta_w(self.w0(part), A, B, part.scaling, self.lora_m[name])
        return part.scaling * (B @ A)

    def _replace(self, weight: Tensor) -> None:
        """Put another weight into the base module, in the precision of its own, which is kept."""
        own = self.weight
        self.kept = (*self.kept, own)
        self.base.weight = nn.Parameter(weight.to(own.dtype), own.requires_grad)

    @torch.no_grad()
    def merge(self) -> None:
        """Put W0 + delta_w, summed in fp32, in W0's place (paper, section 4.1: no extra latency). Idempotent.

        In place of a quantised base there is a Linear then, in the precision in which it computes, and more memory.
        """
        if self.merged:
            return
        w0 = self._whole()
        total = w0.to(torch.float32, copy=True)
        for part in self.parts:
            total[self._rows(part)] += self.delta_w(part.name)
        if quantized.is_quantized(self.base):
            self.kept_base = (self.base,)
            self.base = quantized.linear(total.to(w0.dtype), cast("Tensor | None", self.base.bias))
        else:
            self._replace(turned(self.base, total))
        self.merged = True

    def unmerge(self) -> None:
        """Put the weight from before `merge` itself back, or the quantised base. Idempotent."""
        if not self.merged:
            return
        if self.kept_base:
            self.base, self.kept_base = self.kept_base[0].train(self.training), ()
        else:
            *kept, self.base.weight = self.kept
            self.kept = tuple(kept)
        self.merged = False

    def original(self) -> nn.Module:
        """The base module with W0 itself in it, as it was before it was adapted."""
        self.unmerge()
        if self.kept:
            (self.base.weight,), self.kept = self.kept, ()
        return self.base

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LoRALayer:
        """What `to`, `half` and the like do to parameters, done to what is kept."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for weight in self.kept:
            weight.data = fn(weight.data)
        for base in self.kept_base:
            base._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def extra_repr(self) -> str:  # noqa: D102 (as in nn.Module)
        return ", ".join(f"{part.name}: r={part.r}, scaling={part.scaling:g}" for part in self.parts)
