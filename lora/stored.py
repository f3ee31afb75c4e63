"""Where one stored adapter belongs, and what shapes it must have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lora.errors import InputError, is_count, is_number
from lora.variants import PLAIN, Update, chosen, known


class Target(NamedTuple):
    """One adapter: delta_w = scaling * B A of `shape` (d, k), in `module`, with A (r, k) and B (d, r).

    `w0_norm` is the Frobenius norm of the W0 it was trained on, or 0 if that is not known. A `variant` other than
    `lora` makes its update of scaling * B A and of what else it trains (`lora.variants`).
    """

    module: str
    weight_type: str
    layer: int | None
    r: int
    scaling: float
    shape: tuple[int, int]
    w0_norm: float
    variant: str = PLAIN

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Target:
        """A target from an entry of lora_config.json. Raises TypeError, with what is wrong, if a value is of no use."""
        flags = {name: entry[name] for name in known(Update) if name in entry}
        on = [name for name, value in flags.items() if value]
        own = {name: value for name, value in entry.items() if name not in flags} | {"shape": tuple(entry["shape"])}
        target = cls(**own, variant=on[0] if on else PLAIN)
        numbers = {"scaling": target.scaling, "w0_norm": target.w0_norm}
        wrong = [name for name, value in numbers.items() if not is_number(value)]
        wrong += [name for name in ("module", "weight_type") if not isinstance(getattr(target, name), str)]
        wrong += [name for name, value in flags.items() if not isinstance(value, bool)] + on[1:]
        wrong += ["r"] * (not is_count(target.r))
        wrong += ["shape"] * (len(target.shape) != 2 or not all(map(is_count, target.shape)))
        wrong += ["layer"] * (target.layer is not None and not is_count(target.layer, 0))
        if wrong:
            raise TypeError(f"{wrong[0]} = {entry.get(wrong[0])!r} of target {entry.get('module')!r}")
        if not target.module or "." in target.weight_type or not target.weight_type:
            raise TypeError(f"{target.key!r} is no target")
        return target

    def entry(self) -> dict[str, Any]:
        """The entry of lora_config.json, in which a variant is named only where it is not plain LoRA."""
        fields = self._asdict()
        variant = fields.pop("variant")
        return fields if variant == PLAIN else {**fields, variant: True}

    @property
    def key(self) -> str:
        """Prefix of the target's tensors in the file."""
        return f"{self.module}.{self.weight_type}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of A, B and what else is trained, as m of DoRA."""
        (d, k), r = self.shape, self.r
        return {"A": (r, k), "B": (d, r), **chosen(Update, self.variant).shapes(d, k, r)}

    def check(self, found: Iterable[Sequence[int]], source: str) -> None:
        """Raises InputError, naming `source`, if one of `found` is not the shape that it must be."""
        both = [[tuple(shape) for shape in shapes] for shapes in (found, self.shapes.values())]
        if both[0] != both[1]:
            has, needs = (" and ".join(map("{} {}".format, self.shapes, shapes)) for shapes in both)
            raise InputError(f"{source} is damaged: {self.key} has {has}, but needs {needs}")
