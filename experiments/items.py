"""What a run did on each item of its test split: right or wrong, or its loss. Small enough to be in the records.

Items are in the order of the task, which `split_seed` fixes and no run's seed changes: item i of one run is item i of
every run of that task, so that two methods can be compared item by item. `of` says which items they were; runs with
another are not comparable so. Where a task has a second test set, MNLI's mismatched one, its items follow the first's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "items.json"  # in the folder of a run
_TYPES = {"loss": np.dtype("<f2"), "weight": np.dtype("<u2")}


@dataclass(frozen=True)
class Items:
    """n items; what is None was not measured.

    correct  (n,) bool: the right class, or the right choice of those that a language model had
    loss     (n,) nats a target token of a language model, squared error of a regression; kept in 16 bits: to 0.05%
    weight   (n,) the target tokens that an item's loss is a mean over, at most 65,535
    """

    correct: NDArray[np.bool_] | None = None
    loss: NDArray[np.floating[Any]] | None = None
    weight: NDArray[np.integer[Any]] | None = None

    def __len__(self) -> int:
        return next((len(found) for found in (self.correct, self.loss) if found is not None), 0)

    def __add__(self, more: Items) -> Items:
        """These items, then `more`."""
        pairs = ((self.correct, more.correct), (self.loss, more.loss), (self.weight, more.weight))
        return Items(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs))

    @property
    def accuracy(self) -> float | None:
        """The share of items that are right, in [0, 1]; None where an item is not right or wrong."""
        return None if self.correct is None else float(self.correct.mean())


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """`of`: the first 12 hex digits of the SHA-256 of the items as the task gives them, in their order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return found.hexdigest()[:12]


def pack(items: Items, of: str) -> dict[str, Any]:
    """As JSON: a bit an item for `correct`, two bytes for `loss` and `weight`, in base64."""
    packed: dict[str, Any] = {"of": of, "n": len(items)}
    if items.correct is not None:
        packed["correct"] = _text(np.packbits(items.correct).tobytes())
    for name, kind in _TYPES.items():
        values = getattr(items, name)
        if values is not None:
            packed[name] = _text(np.minimum(values, _largest(kind)).astype(kind).tobytes())
    return packed


def unpack(packed: Mapping[str, Any]) -> Items:
    """The items of `pack`; loss comes back as it was kept. Raises ValueError, KeyError or TypeError if it is none."""
    n = packed["n"]
    if not isinstance(n, int) or n < 1 or not isinstance(packed["of"], str):
        raise ValueError("n is no number of items, or of no text")
    found: dict[str, NDArray[Any]] = {}
    if "correct" in packed:
        bits = np.frombuffer(_bytes(packed["correct"]), np.uint8)
        if len(bits) != -(-n // 8):
            raise ValueError(f"correct has {len(bits)} bytes, not those of {n} items")
        found["correct"] = np.unpackbits(bits, count=n).astype(bool)
    for name, kind in _TYPES.items():
        if name in packed:
            found[name] = np.frombuffer(_bytes(packed[name]), kind)
            if len(found[name]) != n:
                raise ValueError(f"{name} has {len(found[name])} values, not those of {n} items")
    if not {"correct", "loss"} & set(found):
        raise ValueError("neither correct nor loss is there")
    return Items(found.get("correct"), found.get("loss"), found.get("weight"))


def fault(packed: Mapping[str, Any]) -> str | None:
    """What is wrong with packed items, if anything."""
    try:
        unpack(packed)
    except (ValueError, KeyError, TypeError) as error:
        return f"its items are damaged ({' '.join(f'{type(error).__name__}: {error}'.split())})"
    return None


def _largest(kind: np.dtype[Any]) -> float:
    return float(np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from error
