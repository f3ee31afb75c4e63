"""Projections that hold several weight types in one matrix: which of its rows each has.

A layout is a convention of the library or the model that a name comes from; where a name has more than one, it is told
by what the block says of itself. Where the sizes do not agree with it, nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lora.errors import is_a

Rows = slice | Tensor
HEADS = ("num_attention_heads", "num_heads", "n_head")


class Matrix(NamedTuple):
    """A fused projection: `block` is the module that has it, `d` the number of its rows, `out` that of the inputs of
    the block's output projection (0 if there is none), `config` the model's."""

    block: Any
    d: int
    out: int
    config: Any

    def number(self, *names: str) -> int:
        """The first of these settings that the block, its config or the model's config has as a whole number, or 0."""
        places = (self.block, getattr(self.block, "config", None), self.config)
        found = (getattr(place, name, None) for place in places for name in names)
        return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), 0)

    def says(self, name: str) -> bool:
        """Whether the block, or else the model's config, has a setting that is on."""
        return bool(getattr(self.block, name, getattr(self.config, name, False)))

    def is_of(self, name: str) -> bool:
        """Whether the block is of a class of this name, or of one derived from it."""
        return is_a(self.block, name)


Layout = Callable[[Matrix], dict[str, Rows] | None]


def _below(sizes: dict[str, int], d: int) -> dict[str, Rows] | None:
    """Blocks of rows one below the other."""
    if sum(sizes.values()) != d or min(sizes.values()) < 1:
        return None
    return {name: slice(stop - sizes[name], stop) for name, stop in zip(sizes, accumulate(sizes.values()), strict=True)}


def _spread(groups: int, sizes: Sequence[tuple[str, int]], d: int) -> dict[str, Rows] | None:
    """The same blocks of rows within each of so many groups of them."""
    if groups < 1 or min(size for _, size in sizes) < 1 or groups * sum(size for _, size in sizes) != d:
        return None
    blocks = torch.split(torch.arange(d).view(groups, -1), [size for _, size in sizes], dim=1)
    return {name: block.flatten() for (name, _), block in zip(sizes, blocks, strict=True)}


def _thirds(matrix: Matrix) -> dict[str, Rows] | None:
    return _below(dict.fromkeys("qkv", matrix.d // 3), matrix.d)


def _grouped(matrix: Matrix) -> dict[str, Rows] | None:
    """All heads of q, as many as the output projection reads, then the key heads, as many or fewer, and the value heads
    (timm's and flash-attention's qkv, Phi-3's)."""
    q, kv = matrix.out, (matrix.d - matrix.out) // 2
    return _below({"q": q, "k": kv, "v": kv}, matrix.d)


def _per_head(matrix: Matrix) -> dict[str, Rows] | None:
    """Megatron's: within each head q, then k, then v (GPT-NeoX, BLOOM)."""
    heads = matrix.number(*HEADS)
    size = matrix.d // (3 * heads) if heads else 0
    return _spread(heads, [(name, size) for name in "qkv"], matrix.d)


def _query_key_value(matrix: Matrix) -> dict[str, Rows] | None:
    """`_per_head`, but Falcon has groups of query heads, each with its key and value head, or one key and value head
    below all of q; ChatGLM 2 has some of these below q."""
    if matrix.says("new_decoder_architecture"):
        heads, groups = matrix.number(*HEADS), matrix.number("num_kv_heads")
        size = matrix.d // (heads + 2 * groups) if heads else 0
        each = heads // groups if groups else 0
        return _spread(groups, [("q", each * size), ("k", size), ("v", size)], matrix.d)
    if matrix.says("multi_query") or matrix.says("multi_query_attention"):
        return _grouped(matrix)
    return _per_head(matrix) if matrix.d == 3 * matrix.out else None


def _c_attn(matrix: Matrix) -> dict[str, Rows] | None:
    """GPT-2's: q, k and v below one another, but with GPT-BigCode's one key and value head, or without it by head."""
    if matrix.is_of("GPTBigCodeAttention"):
        return _grouped(matrix) if matrix.says("multi_query") else _per_head(matrix)
    return _thirds(matrix)


def _c_attn_of_memory(matrix: Matrix) -> dict[str, Rows] | None:
    """The cross-attention of GPT-2, whose q_attn is apart."""
    return _below(dict.fromkeys("kv", matrix.d // 2), matrix.d)


def _qkv_proj(matrix: Matrix) -> dict[str, Rows] | None:
    """Phi-3's; CodeGen's is in four parts, for so many processors once, each with q, v and k of a quarter of the heads;
    MiniMax's, of lightning attention, is by head. Others of the name are not known."""
    if matrix.is_of("CodeGenAttention"):
        return _spread(4, [(name, matrix.d // 12) for name in "qvk"], matrix.d)
    if matrix.is_of("MiniMaxLightningAttention"):
        return _per_head(matrix)
    return _grouped(matrix) if hasattr(matrix.block, "o_proj") else None


def _latent(matrix: Matrix) -> dict[str, Rows] | None:
    """DeepSeek's kv_b_proj: within each head k, as far as it has no position, then v."""
    k, v = matrix.number("qk_nope_head_dim"), matrix.number("v_head_dim")
    return _spread(matrix.d // (k + v) if k + v else 0, [("k", k), ("v", v)], matrix.d)


def _delta(matrix: Matrix) -> dict[str, Rows] | None:
    """Qwen 3.5's linear attention: q and k, then v."""
    k, v = matrix.number("key_dim"), matrix.number("value_dim")
    return _below({"q": k, "k": k, "v": v}, matrix.d)


def _gated_delta(matrix: Matrix) -> dict[str, Rows] | None:
    """Qwen3-Next's linear attention: within each key head q, k, its value heads, and as many gates."""
    heads, k, v = matrix.number("num_k_heads"), matrix.number("key_dim"), matrix.number("value_dim")
    if not heads:
        return None
    sizes = [("q", k // heads), ("k", k // heads), ("v", v // heads), ("gate of v", v // heads)]
    found = _spread(heads, sizes, matrix.d)
    return found and {name: rows for name, rows in found.items() if name in ("q", "k", "v")}


def _gate_first(matrix: Matrix) -> dict[str, Rows] | None:
    """act(gate) * up: the half that is activated comes first, but in the audio encoder of Phi-4."""
    names = ("up", "gate") if matrix.is_of("Phi4MultimodalAudioMLP") else ("gate", "up")
    return _below(dict.fromkeys(names, matrix.d // 2), matrix.d)


LAYOUTS: dict[str, Layout] = {
    "query_key_value": _query_key_value,
    "c_attn": _c_attn,
    "Wqkv": _grouped,
    "qkv": _grouped,
    "qkv_proj": _qkv_proj,
    "att_proj": _thirds,
    "W_pack": _thirds,
    "in_proj": _per_head,
    "in_proj_qkv": _delta,
    "in_proj_qkvz": _gated_delta,
    "kv_b_proj": _latent,
    "to_kv": _c_attn_of_memory,
    "gate_up_proj": _gate_first,
    "Wi": _gate_first,
    "input_linear": _gate_first,
}  # by the name of the module


def rows_of(name: str, matrix: Matrix) -> dict[str, Rows] | None:
    """Weight type -> its rows, in the order of the rows, of the fused projection of this name; None if its layout is
    not known, or does not agree with its sizes."""
    layout = _c_attn_of_memory if name == "c_attn" and hasattr(matrix.block, "q_attn") else LAYOUTS[name]
    return layout(matrix)


def queries(matrix: Matrix) -> Rows:
    """The rows of q in a q_proj: all, but in Qwen3-Next and after it, whose heads each have a gate below their q."""
    heads, size = matrix.number("num_attention_heads"), matrix.number("head_dim")
    gated = hasattr(matrix.block, "head_dim") and matrix.d == 2 * heads * size == 2 * matrix.out
    found = _spread(heads, [("q", size), ("gate", size)], matrix.d) if gated else None
    return found["q"] if found else slice(None)
