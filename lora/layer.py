"""One adapted layer: a frozen base module plus low-rank updates of all, or of some, of its output rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lora import delta, quantized
from lora.errors import InputError, is_a
from lora.variants import PLAIN, USUAL, Start, Update, chosen


def adaptable(module: nn.Module) -> bool:
    """Linear, Conv1D or Embedding in floating point, or a quantised linear layer (`lora.quantized`), as long as
    h = W0 x + bias is what it computes.

    Embedding's subclasses compute something else (Gemma's scales its output), and the output projection of
    nn.MultiheadAttention is never called: only its weight is read. Conv1D is that of transformers (GPT-2).
    """
    if quantized.is_quantized(module):
        return True
    linear = isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear)
    matrix = linear or type(module) is nn.Embedding or is_a(module, "Conv1D")
    return matrix and (weight := cast(Tensor, module.weight)).ndim == 2 and weight.is_floating_point()


class Part(NamedTuple):
    """One low-rank update, of a `variant` (`lora.variants`). `rows`: which outputs it changes, as a slice or an index
    tensor.

    In a fused projection (GPT-2's c_attn) the weight type q is one Part whose rows are the q third.
    """

    name: str
    r: int
    scaling: float
    rows: slice | Tensor = slice(None)
    variant: str = PLAIN


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

    `init` names the start of A and B, and each part's `variant` what it adds in place of scaling * B A x: objects of
    `lora.variants`. What a variant trains beside A and B, as DoRA's m, is in `lora_m` and the like. With a `residual`
    start the base module gets the residual W0 - scaling * B0 A0, where A0 and B0 are the starts of A and B, so that the
    layer starts at W0. `given` (d, k) is what the start needs of this module (`Start.prepare`).

    The base may be quantised: W0 is then what its codes stand for (QLoRA). `merge` puts a floating-point Linear in its
    place, `unmerge` itself. A start that `remakes` it quantises it anew, for good, and that is W0 from then on.

    Raises InputError if a rank is above min(d, k), if the base module is of a kind that cannot be adapted, and for the
    reasons of the variants.
    """

    def __init__(
        self,
        base: nn.Module,
        parts: tuple[Part, ...],
        dropout: float = 0.0,
        init: str = USUAL,
        given: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not adaptable(base):
            raise InputError(
                f"cannot adapt a {type(base).__name__}: only Linear, Conv1D, Embedding in floating point, and linear "
                f"layers that are quantised as {', '.join(quantized.KINDS)}"
            )
        self.start = chosen(Start, init)
        self.updates = {part.name: chosen(Update, part.variant) for part in parts}
        for variant in (self.start, *self.updates.values()):
            variant.check_base(base)
        self.base = quantized.check(base)
        self.parts = parts
        self.dropout = nn.Dropout(dropout)
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        self.merged = False  # True between `merge` and `unmerge`
        # Weights that another has replaced in the base, W0 first; the tuple keeps them out of this module's parameters
        self.kept: tuple[nn.Parameter, ...] = ()
        self.kept_base: tuple[nn.Module, ...] = ()  # the quantised base, between `merge` and `unmerge`
        for part in parts:
            if isinstance(part.rows, Tensor):
                self.register_buffer(f"rows_{part.name}", part.rows, persistent=False)
        located, whole = [part._replace(rows=self.rows(part)) for part in parts], self.pretrained().detach()
        for part in located:
            d, k = whole[part.rows].shape
            if not 1 <= part.r <= min(d, k):
                raise InputError(f"rank r = {part.r} for {part.name}: it must be between 1 and min(d, k) = {min(d, k)}")
        self.base, starts = self.start.begin(self.base, whole, located, given)
        if self.start.remakes:
            whole = self.pretrained().detach()
        for part, (A, B) in zip(located, starts, strict=True):
            for side, value in {"A": A, "B": B, **self.updates[part.name].start(whole[part.rows])}.items():
                if not hasattr(self, f"lora_{side}"):
                    self.add_module(f"lora_{side}", nn.ParameterDict())
                getattr(self, f"lora_{side}")[part.name] = nn.Parameter(value)
        if self.start.residual:
            residual = self.weight.detach().to(torch.float32, copy=True)
            for part in parts:
                A0, B0 = (side[part.name].detach().clone() for side in (self.lora_A, self.lora_B))
                self.register_buffer(f"start_A_{part.name}", A0)
                self.register_buffer(f"start_B_{part.name}", B0)
                turned(base, residual)[self.rows(part)] -= part.scaling * B0 @ A0
            self._replace(residual)

    @property
    def weight(self) -> nn.Parameter:
        """The base module's weight: some models read `linear.weight` (T5 looks at its dtype)."""
        return cast(nn.Parameter, self.base.weight)

    def w0(self, part: Part) -> Tensor:
        """The pretrained weight (d, k) under one part, whatever the base module holds."""
        return self.pretrained().detach()[self.rows(part)]

    def pretrained(self) -> Tensor:
        """W0 (d, k), of all rows, with its gradient if it has one."""
        base = (*self.kept_base, self.base)[0]
        if quantized.is_quantized(base):
            return quantized.dequantize(base)
        return turned(base, quantized.gathered((*self.kept, self.weight)[0]))

    def rows(self, part: Part) -> slice | Tensor:
        """The outputs that a part changes, on this module's device."""
        return getattr(self, f"rows_{part.name}") if isinstance(part.rows, Tensor) else part.rows

    def trained(self, name: str) -> dict[str, nn.Parameter]:
        """What is trained of one part: A (r, k), B (rows, r) and what its variant has beside them, by name."""
        sides = {side: own for side, own in self.named_children() if isinstance(own, nn.ParameterDict)}
        return {side.removeprefix("lora_"): own[name] for side, own in sides.items() if name in own}

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
            update = self.updates[part.name].output(self, part, update, dropped, h)
            if update.shape == h.shape:
                h = h + update
                continue
            if quantized.is_quantized(self.base):
                h = h.clone()  # what a library's own function returns must not be written into
            h[..., self.rows(part)] += update
        return h

    def matrices(self, name: str) -> tuple[Tensor, Tensor]:
        """A (r', k) and B (rows, r') of one part, with scaling * B A the update of the pretrained W0, fp32.

        r' = r, but after a residual start the update is scaling * (B A - B0 A0), of rank 2r or min(d, k).
        """
        A, B = self.lora_A[name], self.lora_B[name]
        if not self.start.residual:
            return A, B
        A0, B0 = (self.get_buffer(f"start_{side}_{name}") for side in "AB")
        return delta.smallest(torch.cat((A, A0)), torch.cat((B, -B0), dim=1))

    def stored(self, name: str) -> dict[str, Tensor]:
        """What is stored of one part: A and B of `matrices`, and what its variant trains beside them, by name."""
        return {**self.trained(name), **dict(zip("AB", self.matrices(name), strict=True))}

    def delta_w(self, name: str) -> Tensor:
        """What one part adds to the pretrained W0, (rows, k), fp32: scaling * B A for LoRA."""
        part = next(part for part in self.parts if part.name == name)
        return self.updates[name].delta_w(self, part)

    def _replace(self, weight: Tensor) -> None:
        """Put another weight into the base module, in the precision of its own, which is kept."""
        own = self.weight
        self.kept = (*self.kept, own)
        self.base.weight = nn.Parameter(weight.to(own.dtype), own.requires_grad)

    @torch.no_grad()
    def merge(self) -> None:
        """Put W0 + delta_w, summed in fp32, in W0's place (paper, section 4.1: no extra latency). Idempotent.

        In place of a quantised base there is a Linear then, in the precision in which it computes, and more memory.

        Raises InputError where processes hold a share of W0 each, as torch would put W0 back before each forward pass,
        and where W0 is offloaded.
        """
        if self.merged:
            return
        if getattr(self.base, "_is_fsdp_managed_module", False):
            raise InputError("adapters of a model that is sharded (fully_shard) cannot be merged: compute unmerged")
        w0 = self.pretrained()
        if w0.is_meta:
            raise InputError("adapters of a model whose weights are offloaded cannot be merged: compute unmerged")
        total = w0.to(torch.float32, copy=True)
        for part in self.parts:
            total[self.rows(part)] += self.delta_w(part.name)
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
