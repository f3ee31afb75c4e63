"""loralib checkpoints: `torch.save(loralib.lora_state_dict(model), path)`. They store neither alpha nor slices."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from lora.errors import InputError
from lora.formats.keys import plain
from lora.formats.others import refuse_other
from lora.formats.peft import matrix_shape
from lora.stored import Adapter, Piece, Target
from lora.targets import WHOLE, layer_of, spread_over_heads, types_by_name
from lora.tensor_files import TensorFile

# Ends of names that linear layers and embeddings have, and parts of names that convolutions have
_LINEAR = re.compile(
    r"(^|[._])(lin\w*|linear\w*|fc\w*|dense|w?[qkvo]|query|key|value|out|wq|wk|wv|wo|\w*_(proj|lin)|head|lm_head|"
    r"classifier|score|pooler|words?|wte|wpe|shared|\w*embed\w*)$"
)
_CONVOLUTION = re.compile(r"conv|patch|downsample|features|stem", re.IGNORECASE)


def is_loralib(file: TensorFile) -> bool:
    """True if a file of tensors has an adapter under loralib's names."""
    return any(name.endswith((".lora_A", ".lora_B")) for name in file.shapes)


def modules_of(file: TensorFile) -> dict[str, str]:
    """Adapted module -> its name in the file, which may have wrappers' parts in it.

    Raises InputError if two are one, for tensors that are no part of loralib's, or for a file of another library.
    """
    refuse_other(file)
    names = [name for name in file.shapes if ".lora_" in name]
    odd = [name for name in names if not name.endswith((".lora_A", ".lora_B"))]
    if odd:
        raise InputError(f"{file.path}: {odd[0]} is no tensor of loralib's")
    stored = list(dict.fromkeys(name.rpartition(".lora_")[0] for name in names))
    bare = plain(file.shapes)
    found: dict[str, str] = {}
    for name in stored:
        module = bare[f"{name}.lora_A" if f"{name}.lora_A" in bare else f"{name}.lora_B"].rpartition(".lora_")[0]
        if module in found:
            raise InputError(f"{file.path}: {found[module]} and {name} are both {module}: which one is it?")
        found[module] = name
    return found


def others_of(file: TensorFile) -> dict[str, str]:
    """What is stored beside the adapters: name in the model -> name in the file."""
    return {own: name for name, own in plain(file.shapes).items() if ".lora_" not in name}


def loralib_pieces(
    file: TensorFile, module: str, stored: str, names: Sequence[str], scalings: Sequence[float]
) -> dict[Target, tuple[Piece, ...]]:
    """The updates of one module, `stored` in the file. For several `names`, in the order of their rows, it is a
    MergedLinear: its A's lie one below the other, and so do its B's. Raises InputError if A or B is missing."""
    sides = {side: f"{stored}.lora_{side}" for side in "AB"}
    if not all(name in file.shapes for name in sides.values()):
        raise InputError(f"{file.path} has no lora_A and lora_B for {module}: choose the weight types it trained")
    (ranks, k), (rows, r) = (matrix_shape(file, name) for name in sides.values())
    if not r or ranks != r * len(names) or rows % len(names):
        raise InputError(
            f"{file.path}: A {(ranks, k)} and B {(rows, r)} of {module} are not those of {len(names)} update(s) of one "
            f"rank ({', '.join(names)})"
        )
    d, pieces = rows // len(names), {}
    for index, (name, scaling) in enumerate(zip(names, scalings, strict=True)):
        target = Target(module, name, layer_of(module), r, scaling, (d, k), 0.0)
        pieces[target] = tuple(
            Piece(sides[side], slice(index * size, (index + 1) * size)) for side, size in (("A", r), ("B", d))
        )
    return pieces


def read_loralib(
    file: TensorFile, alpha: float, slices: Sequence[str] = (), is_linear: Callable[[str], bool] = lambda module: False
) -> Adapter:
    """The adapter in a loralib checkpoint, which stores neither alpha nor which slices of a fused projection are on.

    `slices`: these weight types, or `all` if it adapts fused projections as a whole; scaling = alpha / r as in loralib.
    `is_linear`: whether a base model says that a module is a linear layer or an embedding.

    Raises InputError if the file is damaged, does not agree with `slices`, or may be of a Conv2d: its matrices have
    kernel times as many rows and columns, so that r cannot be told from it.
    """
    pieces: dict[Target, tuple[Piece, ...]] = {}
    modules = modules_of(file)
    for module, stored in modules.items():
        types = types_by_name(module)
        if len(types) > 1:
            if spread_over_heads(module) and WHOLE not in slices:
                raise InputError(
                    f"{file.path}: the rows of q, k and v in {module} are spread over the heads: choose the slices all"
                )
            names = [WHOLE] if WHOLE in slices else [name for name in types if name in slices]
            if not names:
                raise InputError(
                    f"{file.path} adapts {module}, which is {'+'.join(types)} in one, and does not say which of these: "
                    "choose the slices: one or several of them, or all for one update of all rows"
                )
        else:
            names = types or [WHOLE]
            if not types and not is_linear(module):
                _refuse_convolution(file, module, stored)
        r = file.shapes.get(f"{stored}.lora_B", (0, 0))[-1]
        pieces |= loralib_pieces(file, module, stored, names, [alpha / max(r, 1)] * len(names))
    return Adapter(str(file.path), file, pieces, others_of(file))


def _refuse_convolution(file: TensorFile, module: str, stored: str) -> None:
    """Raises InputError if A and B can be those of a loralib.Conv2d, and the module's name does not say otherwise."""
    sizes = [size for side in "AB" for size in file.shapes.get(f"{stored}.lora_{side}", ())]
    common = math.gcd(*sizes) if sizes else 1
    if common > 1 and (not _LINEAR.search(module) or _CONVOLUTION.search(module)):
        raise InputError(
            f"{file.path}: {module} may be a Conv2d of loralib, whose rank and scaling its file does not tell: give "
            "the base model, if it is a linear layer there (--base); adapters of convolutions are not read"
        )
