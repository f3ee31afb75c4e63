"""training.dropout_masks: dropout's random numbers from a fast generator, 16 bits a number.

torch draws a 32-bit number an entry, one by one: on a processor with fast matrix products a fifth of a step of a small
encoder. numpy's SFC64 gives four numbers a call. An entry is kept with the probability asked for, to within 2^-16.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

LEVELS = 1 << 16
HALF = LEVELS // 2  # torch compares signed numbers of 16 bits fast, and unsigned ones slowly


@contextmanager
def masks(kind: str | None) -> Iterator[None]:
    """Within it every dropout on the processor draws its mask as `kind` says: fast, or None, as torch does.

    The mask is a function of torch's own generator, so that what stores and restores its state (a checkpoint of a run,
    activations that are computed again) has the same masks again. A GPU's dropout, and that of layers which
    torch.compile has compiled, stay as they are.
    """
    if kind is None:
        yield
        return
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that its own kernel is overridden: it is meant to be
        library.impl("bernoulli_.float", _keep, "CPU")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        del library  # with it goes the kernel
        gc.collect()


def _keep(out: Tensor, p: float = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
    """Fill `out` with 1 where an entry is kept, with probability p, and 0 elsewhere: Tensor.bernoulli_."""
    seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    words = np.random.SFC64(seed).random_raw(-(-out.numel() // 4))
    numbers = torch.from_numpy(words.view(np.int16)[: out.numel()]).view(out.shape)
    below = min(round(p * LEVELS) - HALF, HALF - 1)
    return torch.lt(numbers, below, out=out)
