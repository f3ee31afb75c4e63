"""A stored adapter, of this suite, of peft or of loralib: where each adapter belongs, and which tensors it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lora.errors import InputError, is_count, is_number
from lora.variants import PLAIN, USUAL, Update, chosen, known

if TYPE_CHECKING:
    from torch import Tensor

    from lora.tensor_files import TensorFile


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


class Piece(NamedTuple):
    """Rows of a tensor of the file."""

    name: str
    rows: slice = slice(None)


class Adapter(NamedTuple):
    """An adapter and where its tensors are; they are read when asked for. Each tensor of the file is in one of these.

    pieces   target -> A (r, k), B (d, r) and what its variant trains beside, as m (d,) of DoRA
    others   trained beside the adapters: name in the model -> name in the file
    apart    those of `others` that are of a module's own copy: a weight tied to them stays as it was pretrained
    unused   tensors that have no effect on outputs: name in the file -> why
    base     the base model, as far as the adapter names it
    notes    what else a reader must know
    init     the usual start, or that of base weights made anew
    """

    source: str
    file: TensorFile
    pieces: dict[Target, tuple[Piece, ...]]
    others: dict[str, str]
    apart: frozenset[str] = frozenset()
    unused: dict[str, str] = {}  # noqa: RUF012 (never written)
    base: str | None = None
    notes: tuple[str, ...] = ()
    init: str = USUAL

    @property
    def targets(self) -> list[Target]:
        """Where its updates are."""
        return list(self.pieces)

    def matrices(self, target: Target) -> tuple[Tensor, Tensor]:
        """A (r, k) and B (d, r), fp32. Raises InputError as `tensors`."""
        A, B, *_ = self.tensors(target)
        return A, B

    def tensors(self, target: Target) -> tuple[Tensor, ...]:
        """A, B and what is trained beside, fp32. Raises InputError if the file is damaged or a number is not finite."""
        return self.all_tensors([target])[target]

    def all_tensors(self, targets: Sequence[Target] | None = None) -> dict[Target, tuple[Tensor, ...]]:
        """The tensors of many targets (None: all), with the file opened once. Raises InputError as `tensors`."""
        targets = self.targets if targets is None else targets
        stored = self.file.weights(dict.fromkeys(piece.name for target in targets for piece in self.pieces[target]))
        found = {target: tuple(stored[name][rows].float() for name, rows in self.pieces[target]) for target in targets}
        for target, tensors in found.items():
            target.check([tensor.shape for tensor in tensors], self.source)
        return found

    def parameters(self) -> dict[str, Tensor]:
        """What was trained beside the adapters, by name in the model; whole numbers (counters) as they are stored.

        Raises InputError if the file is damaged or a number is not finite."""
        counts = [name for name in self.others.values() if self._counts(name)]
        found = self.file.weights(name for name in self.others.values() if name not in counts)
        found |= self.file.tensors(counts)
        return {name: found[stored] for name, stored in self.others.items()}

    def _counts(self, name: str) -> bool:
        """Whether a tensor is a counter or a table of indices, as BatchNorm has one, and no quantised weight."""
        return self.file.dtypes.get(name) == "int64" and len(self.file.shapes[name]) < 2
