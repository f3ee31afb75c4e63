"""Where one stored adapter belongs, and what shapes it must have."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lora.config import InputError


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value from JSON is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


class Target(NamedTuple):
    """One adapter: delta_w = scaling * B A of `shape` (d, k), in `module`, with A (r, k) and B (d, r).

    `w0_norm` is the Frobenius norm of the W0 it was trained on, or 0 if that is not known. With `dora` scaling * B A is
    the update of W0's directions alone, and there are magnitudes m (d,).
    """

    module: str
    weight_type: str
    layer: int | None
    r: int
    scaling: float
    shape: tuple[int, int]
    w0_norm: float
    dora: bool = False

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Target:
        """A target from an entry of lora_config.json. Raises TypeError, with what is wrong, if a value is of no use."""
        target = cls(**{**entry, "shape": tuple(entry["shape"])})
        numbers = {"scaling": target.scaling, "w0_norm": target.w0_norm}
        wrong = [name for name, value in numbers.items() if not is_number(value)]
        wrong += [name for name in ("module", "weight_type") if not isinstance(getattr(target, name), str)]
        wrong += ["r"] * (not is_count(target.r)) + ["dora"] * (not isinstance(target.dora, bool))
        wrong += ["shape"] * (len(target.shape) != 2 or not all(map(is_count, target.shape)))
        wrong += ["layer"] * (target.layer is not None and not is_count(target.layer, 0))
        if wrong:
            raise TypeError(f"{wrong[0]} = {entry.get(wrong[0])!r} of target {entry.get('module')!r}")
        if not target.module or "." in target.weight_type or not target.weight_type:
            raise TypeError(f"{target.key!r} is no target")
        return target

    @property
    def key(self) -> str:
        """Prefix of the target's tensors in the file."""
        return f"{self.module}.{self.weight_type}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of A, B and, with DoRA, m."""
        (d, k), r = self.shape, self.r
        return {"A": (r, k), "B": (d, r)} | ({"m": (d,)} if self.dora else {})

    def check(self, tensors: Sequence[Tensor], source: str) -> None:
        """Raises InputError, naming `source`, if A, B or m has not the shape that it must have."""
        needed, found = list(self.shapes.values()), [tuple(tensor.shape) for tensor in tensors]
        if found != needed:
            has, needs = (" and ".join(map("{} {}".format, self.shapes, shapes)) for shapes in (found, needed))
            raise InputError(f"{source} is damaged: {self.key} has {has}, but needs {needs}")
