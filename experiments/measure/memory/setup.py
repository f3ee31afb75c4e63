"""What one training step is planned, or measured, for; and the bytes that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PRECISIONS = {
    "fp32": "all in fp32",
    "bf16": "frozen weights in bf16, trained ones in fp32, computed under autocast: what this suite does",
    "amp": "weights and gradients in 16 bits, fp32 copies and moments of trained ones: 16 bytes a trained parameter",
    "pure16": "all in 16 bits",
}
LABELS = 2  # of a classifier


@dataclass(frozen=True)
class Setup:
    """One training step of a model with a method.

    `model` and `method` are as in a run's config: `model.path` is a hub id, a folder, `asset:…` or `config:llama-7b`
    (one that ships, of which there are no weights), `model.quantization` may be null.
    `precision`: one of PRECISIONS, which says what it means.
    `device`: cpu or cuda, which have other attention kernels.
    `targets`: how many tokens of a row have logits; None: a classifier, one vector of logits a row.
    """

    model: Mapping[str, Any]
    method: Mapping[str, Any]
    batch: int = 1
    length: int = 1
    targets: int | None = None
    precision: str = "bf16"
    checkpointing: bool = False
    state_precision: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Plan:
    """Bytes of one training step, and numbers of parameters: what each is, `schemas.SETUPS` says.

    `peak` is the largest sum alive at one time, which is at most the sum of all of them: gradients and activations are
    not all alive together.
    """

    total_params: int
    trainable_params: int
    checkpoint_bytes: int
    weights: int
    master: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    temporary: int
    peak: int
    notes: tuple[str, ...] = field(default=())
