"""An adapter as a file of another library holds it: which tensors are what, and what is not used."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lora.errors import InputError
from lora.stored import Target
from lora.tensor_files import TensorFile


class Piece(NamedTuple):
    """Rows of a tensor of the file."""

    name: str
    rows: slice = slice(None)


class Foreign(NamedTuple):
    """An adapter and where its tensors are; they are read when asked for. Each tensor of the file is in one of these.

    pieces   target -> A (r, k), B (d, r) and what its variant trains beside, as m (d,) of DoRA
    others   trained beside the adapters: name in the model -> name in the file
    apart    those of `others` that are of a module's own copy: a weight tied to them stays as it was pretrained
    unused   tensors that have no effect on outputs: name in the file -> why
    base     the base model, as far as the adapter names it
    notes    what else a reader must know
    """

    source: str
    file: TensorFile
    pieces: dict[Target, tuple[Piece, ...]]
    others: dict[str, str]
    apart: frozenset[str] = frozenset()
    unused: dict[str, str] = {}  # noqa: RUF012 (never written)
    base: str | None = None
    notes: tuple[str, ...] = ()

    def tensors(self, target: Target) -> tuple[Tensor, ...]:
        """A, B and what is trained beside, fp32. Raises InputError if the file is damaged or a number is not finite."""
        return self.all_tensors([target])[target]

    def all_tensors(self, targets: list[Target] | None = None) -> dict[Target, tuple[Tensor, ...]]:
        """The tensors of many targets (None: all), with the file opened once. Raises InputError as `tensors`."""
        targets = list(self.pieces) if targets is None else targets
        for target in targets:
            self._check_shapes(target)
        stored = self.file.weights(dict.fromkeys(piece.name for target in targets for piece in self.pieces[target]))
        found: dict[Target, tuple[Tensor, ...]] = {}
        for target in targets:
            found[target] = tuple(stored[name][rows].float() for name, rows in self.pieces[target])
            target.check([tensor.shape for tensor in found[target]], self.source)
        return found

    def _check_shapes(self, target: Target) -> None:
        """Shapes from the file's header, before anything of their size is read."""
        for piece in self.pieces[target]:
            if len(self.file.shapes[piece.name]) > 2:
                raise InputError(f"{self.file.path}: {piece.name} has the shape {self.file.shapes[piece.name]}")

    def parameters(self) -> dict[str, Tensor]:
        """What was trained beside the adapters, by name in the model; whole numbers (counters) as they are stored.

        Raises InputError if the file is damaged or a number is not finite."""
        floats = [stored for stored in self.others.values() if not _counts(self.file, stored)]
        found = self.file.weights(floats)
        found |= self.file.tensors(stored for stored in self.others.values() if stored not in found)
        return {name: found[stored] for name, stored in self.others.items()}


def _counts(file: TensorFile, name: str) -> bool:
    """Whether a tensor is a counter or a table of indices, as BatchNorm has one, and no quantised weight."""
    return file.dtypes[name] == "int64" and len(file.shapes[name]) < 2
