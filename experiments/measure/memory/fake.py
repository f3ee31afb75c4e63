"""Tensors with shapes and no data, in a program that asks for values all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import masking_utils

aten = torch.ops.aten
MASKED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
QUESTIONS = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)
HOLDING = (aten.all.default, aten.all.dim, aten.eq.Scalar)


@contextmanager
def fake(chosen: int, padded: bool, device: str = "cpu") -> Iterator[None]:
    """Within it all tensors are fake. A mask by which is indexed chooses `chosen` entries; batches are `padded` or not.
    They say that they are on a CPU; autocast is that of `device`, cpu or cuda.

    transformers looks if a batch has padding, and makes no attention mask if it has none; with fake tensors it does not
    look, and makes one.
    """
    looks = nullcontext() if padded else mock.patch.object(masking_utils, "is_tracing", return_value=False)
    norms = mock.patch.object(functional, "layer_norm", _layer_norm) if device == "cuda" else nullcontext()
    with looks, norms, FakeTensorMode(), _Answers(chosen):
        yield


_PLAIN = functional.layer_norm


def _layer_norm(*given: Any, **named: Any) -> Tensor:
    """Under autocast a GPU has layer norms in fp32, a CPU in bf16: the one difference that transformers' models come
    upon, as they ask for fp32 themselves in softmax, RMSNorm and the loss."""
    if not torch.is_autocast_enabled("cpu"):
        return _PLAIN(*given, **named)
    with torch.autocast("cpu", enabled=False):
        given, named = tree_map_only(Tensor, Tensor.float, (given, named))
        return _PLAIN(*given, **named)


class _Answers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers questions about values as if nothing were out of the ordinary, and what happens now and then happened.

    `any` is false, as what it looks for are errors; `all` and the equality with a number are true; a number is 1.
    """

    def __init__(self, chosen: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.chosen = chosen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in QUESTIONS:
            value = args[0]
            if value.dtype == torch.bool:
                return getattr(value, "holds", False)
            return 1.0 if value.is_floating_point() else 1
        if func in MASKED:
            args = self._numbered(*args)
        if func is aten._grouped_mm.default and args[0].dtype != torch.bfloat16:
            # Mixtral's experts: real tensors can be of any precision, fake ones cannot.
            x, weight, *rest = args
            return func(x.bfloat16(), weight.bfloat16(), *rest, **(kwargs or {})).to(x.dtype)
        result = func(*args, **(kwargs or {}))
        if func in HOLDING:
            result.holds = True
        return result

    def _numbered(self, own: Tensor, indices: Sequence[Tensor | None], *rest: Any) -> Any:
        """The arguments of an indexing with numbers in place of a mask: how many they are depends on its values."""
        numbers: list[Tensor | None] = []
        for index in indices:
            if index is None or index.dtype != torch.bool:
                numbers.append(index)
            else:
                numbers += [torch.empty(self.chosen, dtype=torch.long) for _ in range(index.ndim)]
        return (own, numbers, *rest)
