"""What a source stores beside the updates of weight matrices: every other tensor, measured or named."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from analysis.weights.pretrained import Weights
from lora.config import InputError
from lora.stored import Adapter, Target
from lora.tensor_files import TensorFile

WHOLE, BIAS, MAGNITUDES = "module trained whole", "bias", "magnitudes of DoRA"
PARAMETER, ABSENT = "parameter", "not in the base model"
WRAPPED = re.compile(r"\.(base_layer|modules_to_save|original_module)\.")  # what peft puts into a model's names
PART = 1 << 22  # numbers of a tensor that are in double precision at once
FEW = 3  # names that a note gives before it only counts


class Beside(NamedTuple):
    """One tensor: its name in the model, what it is, its shape; Frobenius norms of it, of the base model's tensor and
    of their difference, NaN where the base model is not known or does not hold it."""

    name: str
    what: str
    shape: tuple[int, ...]
    norm: float
    norm_base: float
    norm_change: float

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return int(torch.Size(self.shape).numel())


class Account(NamedTuple):
    """Tensors beside the updates, and what a reader must know of those that were not read."""

    rows: Sequence[Beside] = ()
    notes: Sequence[str] = ()


def of_parameters(
    parameters: Mapping[str, Tensor], base: Weights | None, whole: Sequence[str] | frozenset[str] = ()
) -> list[Beside]:
    """Parameters that were trained beside adapters, by name in the model. `whole`: those of modules saved whole.

    Raises InputError if the base model holds another shape, or its file is damaged.
    """
    rows = []
    for name, tensor in parameters.items():
        own = base.parameter(name) if base else None
        what = WHOLE if name in whole else BIAS if name.endswith(".bias") else PARAMETER
        if base and own is None:
            what += f", {ABSENT}"
        if own is not None and own.shape != tensor.shape:
            what, own = f"{what}, {tuple(own.shape)} in the base model", None
        rows.append(_row(name, what, tensor, own))
    return rows


def of_adapter(adapter: Adapter, base: Weights | None, whole: frozenset[str]) -> Account:
    """All that an adapter stores beside A and B. Raises InputError as `of_parameters`."""
    rows = of_parameters(adapter.parameters(), base, whole)
    rows += of_magnitudes(adapter.all_tensors([target for target in adapter.targets if target.variant == "dora"]))
    why: dict[str, list[str]] = {}
    for name, reason in adapter.unused.items():
        why.setdefault(reason, []).append(name)
    notes = [f"{_named(names)} without effect here: {reason}" for reason, names in why.items()]
    return Account(rows, [*adapter.notes, *notes, *of_rest(adapter.file)])


def of_magnitudes(tensors: Mapping[Target, tuple[Tensor, ...]]) -> list[Beside]:
    """The magnitudes of DoRA's adapters."""
    return [_row(f"{target.key}.m", MAGNITUDES, own[2], None) for target, own in tensors.items() if len(own) > 2]


def of_rest(file: TensorFile) -> list[str]:
    """A note on what a file holds beside its tensors."""
    return [f"its file holds {', '.join(file.left)} too, which is not read"] * bool(file.left)


def of_checkpoint(tuned: Weights, base: Weights, partial: bool, read: Collection[str] | None = None) -> Account:
    """Every tensor of a full checkpoint that is in no weight matrix of a weight type: against the base model's. Only
    those that differ have a row. `partial`: the checkpoint stores what was trained alone; `read`: the stored names of
    those that were read as matrices, where they are not those of `Weights.sites`.

    Raises InputError if one of the two holds codes in place of weights, or is damaged.
    """
    read = tuned.read_as_matrix() if read is None else read
    rows, same, indices = [], 0, []
    for name, stored in tuned.parameters.items():
        if stored in read:
            continue
        if tuned.checkpoint.dtype(stored) in ("int64", "int32", "bool"):
            indices.append(stored)
            continue
        tensor, own = tuned.parameter(name), base.parameter(name)
        assert tensor is not None
        shaped = own if own is not None and own.shape == tensor.shape else None
        what = PARAMETER if shaped is not None else ABSENT
        if own is not None and shaped is None:
            what = f"{tuple(own.shape)} in the base model"
        row = _row(stored, what, tensor, shaped)
        same += row.norm_change == 0
        rows += [row] * (row.norm_change != 0)
    notes = [f"{same} tensors beside the weight matrices are the base model's"] * bool(same)
    notes += [f"{_named(indices)} of indices or masks, not compared"] * bool(indices)
    absent = [stored for name, stored in base.parameters.items() if name not in tuned.parameters]
    if absent and not partial:
        notes.append(f"{_named(absent)} of {base.source} not in it, and not compared")
    return Account(rows, notes)


def refuse_codes(source: str, names: Sequence[str]) -> None:
    """Raises InputError if `names`, of scales or packed numbers, say that a checkpoint's weights are quantised."""
    if names:
        raise InputError(
            f"{source} is quantised ({names[0]} and {len(names) - 1} more): its numbers are no weights by themselves. "
            "Give it in 16 or 32 bits"
        )


def _named(names: Sequence[str]) -> str:
    few = ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")
    return f"{len(names)} tensor{'s' * (len(names) > 1)} ({few})"


def _row(name: str, what: str, tensor: Tensor, own: Tensor | None) -> Beside:
    nan = float("nan")
    norms = [_norm(tensor), nan, nan] if own is None else [_norm(tensor), _norm(own), _norm(tensor, own)]
    return Beside(name, what, tuple(tensor.shape), *norms)


def _norm(tensor: Tensor, less: Tensor | None = None) -> float:
    """||tensor - less||_F, summed in double precision, a part at a time."""
    parts = torch.split(tensor.flatten(), PART)
    others = torch.split(less.flatten(), PART) if less is not None else [None] * len(parts)
    squares = 0.0
    for part, other in zip(parts, others, strict=True):
        numbers = part.double() if other is None else part.double() - other.double()
        squares += float(numbers.square().sum())
    return squares**0.5
