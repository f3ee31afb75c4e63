"""Batches on their way to a device that computes what is queued for it: who asks it for a value waits for all of that.

So a loop asks seldom. What the processor knows, as which tokens are padding, is not asked for; losses stay on the
device and are fetched in blocks (`experiments.training`), what an evaluation finds at its end (`experiments.parallel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, masking_utils


def queues(device: torch.device) -> bool:
    """True for a device to which work is sent ahead: a GPU. A processor has computed what it returns."""
    return device.type != "cpu"


def brought(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch of the processor's memory on `device`. To a CUDA device it is copied from pinned memory, while that and
    this program go on."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in batch.items()}
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}


# What of transformers asks for values of a mask or of tokens: to leave out a mask that masks nothing, unless it traces,
# and to warn of padding without a mask.
_LOOKS: tuple[tuple[Any, str, Any], ...] = (
    (masking_utils, "is_tracing", lambda *_: True),
    (PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_: None),
)


@contextmanager
def padding_known(device: torch.device) -> Iterator[None]:
    """Within it transformers does not ask a device that queues which tokens are padding: a batch that has a mask has
    some, and one without may be read without."""
    if not queues(device):
        yield
        return
    before = [getattr(owner, name) for owner, name, _ in _LOOKS]
    for owner, name, blind in _LOOKS:
        setattr(owner, name, blind)
    try:
        yield
    finally:
        for (owner, name, _), own in zip(_LOOKS, before, strict=True):
            setattr(owner, name, own)
