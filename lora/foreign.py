"""Adapters of other libraries, read without their model: peft folders and loralib checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from lora.config import InputError
from lora.io import Target, read_json
from lora.targets import WHOLE, layer_of, spread_over_heads, types_by_name
from lora.tensor_files import Pickled, TensorFile, open_tensors

PEFT_CONFIG, PEFT_WEIGHTS, PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
PEFT_PICKLED = "adapter_model.bin"  # what peft wrote before safetensors
PEFT_MAGNITUDE = "lora_magnitude_vector"  # DoRA's m
# What makes a peft LoRA something else than our LoRA or DoRA on the pretrained W0: options, and inits that change W0
PEFT_OTHER = (
    *("use_qalora", "use_bdlora", "kasa_config", "arrow_config", "alora_invocation_tokens", "lora_bias"),
    *("layer_replication", "trainable_token_indices", "target_parameters"),
)
PEFT_OTHER_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
A_NAME = re.compile(r"\.lora_(embedding_)?A(\.weight)?$")


class Piece(NamedTuple):
    """Rows of a tensor of the file."""

    name: str
    rows: slice = slice(None)


class Foreign(NamedTuple):
    """An adapter and where its tensors are; they are read when asked for.

    pieces   target -> A (r, k), B (d, r) and, with DoRA, m (d,)
    others   trained beside the adapters: name in the model -> name in the file
    base     the base model, as far as the adapter names it
    """

    source: str
    file: TensorFile
    pieces: dict[Target, tuple[Piece, ...]]
    others: dict[str, str]
    base: str | None = None

    def tensors(self, target: Target) -> tuple[Tensor, ...]:
        """A, B and, with DoRA, m, fp32. Raises InputError if the file is damaged."""
        tensors = tuple(self.file.tensor(name)[rows].float() for name, rows in self.pieces[target])
        target.check(tensors, self.source)
        return tensors

    def parameters(self) -> dict[str, Tensor]:
        """What was trained beside the adapters, by name in the model. Raises InputError if the file is damaged."""
        return {name: self.file.tensor(stored) for name, stored in self.others.items()}


def _matrix_shape(file: TensorFile, name: str) -> tuple[int, int]:
    shape = file.shapes[name]
    if len(shape) != 2:
        raise InputError(f"{file.path}: {name} has the shape {shape}: only adapters of linear layers and embeddings")
    return shape[0], shape[1]


def type_by_name(module: str) -> str:
    """The weight type that a whole module is by its name, or WHOLE if it is fused or of no known architecture."""
    types = types_by_name(module)
    return types[0] if len(types) == 1 else WHOLE


def _peft_option(config: Mapping[str, Any], name: str, patterns: str, module: str) -> Any:
    """peft's rule: the first pattern that matches the end of the module's name, else the option for all (default 8)."""
    matching = (value for key, value in (config.get(patterns) or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(matching, config.get(name, 8))


def read_peft_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises InputError if it is damaged, or of an adapter of another equation (PiSSA…)."""
    config = read_json(folder / PEFT_CONFIG)
    init = str(config.get("init_lora_weights")).lower()
    other = [name for name in PEFT_OTHER if config.get(name)] + [init] * init.startswith(PEFT_OTHER_INITS)
    if config.get("peft_type") != "LORA" or other:
        what = ", ".join(other) or config.get("peft_type")
        raise InputError(
            f"{folder}: this peft adapter uses {what}, which is not h = W0 x + s B A x on the pretrained W0"
        )
    return config


def read_peft(folder: Path, weight_type: Callable[[str], str] = type_by_name) -> Foreign:
    """A peft LoRA or DoRA adapter. `weight_type`: module -> its weight type.

    Raises InputError if the folder is damaged, or the adapter uses what changes the equation (PiSSA…).
    """
    config = read_peft_config(folder)
    pickled = folder / PEFT_PICKLED
    file = Pickled(pickled) if pickled.is_file() else open_tensors(folder / PEFT_WEIGHTS)
    left = {name.removeprefix(PEFT_PREFIX): name for name in file.shapes}
    dora = bool(config.get("use_dora"))
    pieces: dict[Target, tuple[Piece, ...]] = {}
    for key in [key for key in left if A_NAME.search(key)]:
        module = A_NAME.sub("", key)
        names = [left.pop(key), left.pop(re.sub(r"A(\.weight)?$", r"B\1", key), None)]
        if names[1] is None:
            raise InputError(f"{folder}: {module} has an A but no B: the adapter is damaged")
        if dora:
            names.append(left.pop(f"{module}.{PEFT_MAGNITUDE}", None))
            if names[2] is None:
                raise InputError(
                    f"{folder}: {module} has no {PEFT_MAGNITUDE}, which DoRA needs: the adapter is damaged"
                )
        (rank, k), (d, _) = (_matrix_shape(file, str(name)) for name in names[:2])
        r, scaling = _peft_scaling(config, module, rank, file.path)
        target = Target(module, weight_type(module), layer_of(module), r, scaling, (d, k), 0.0, dora)
        pieces[target] = tuple(Piece(str(name)) for name in names)
    others = {name.replace(".base_layer.", "."): stored for name, stored in left.items()}
    return Foreign(str(folder), file, pieces, others, config.get("base_model_name_or_path") or None)


def _peft_scaling(config: Mapping[str, Any], module: str, rank: int, path: Path) -> tuple[int, float]:
    """r and the scaling of one module; `rank` is what its A has."""
    try:
        r, alpha = (
            _peft_option(config, *names, module) for names in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern"))
        )
    except (re.error, AttributeError) as error:
        raise InputError(f"{path.parent / PEFT_CONFIG} is damaged: rank_pattern or alpha_pattern ({error})") from error
    if rank != r or rank < 1 or not isinstance(alpha, int | float):
        told = f"r = {r!r} and lora_alpha = {alpha!r} in {PEFT_CONFIG}"
        raise InputError(f"{path.parent}: {module} has rank {rank} in {path.name}, but {told}")
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def is_loralib(file: TensorFile) -> bool:
    """True if a file of tensors has an adapter under loralib's names."""
    return any(name.endswith(".lora_A") for name in file.shapes)


def loralib_pieces(
    file: TensorFile, module: str, names: Sequence[str], scalings: Sequence[float]
) -> dict[Target, tuple[Piece, ...]]:
    """The updates of one module. For several `names`, in the order of their rows, it is a MergedLinear: its A's lie one
    below the other, and so do its B's. Raises InputError if A or B is missing."""
    stored = {side: f"{module}.lora_{side}" for side in "AB"}
    if not all(name in file.shapes for name in stored.values()):
        raise InputError(f"{file.path} has no lora_A and lora_B for {module}: choose the weight types it trained")
    (ranks, k), (rows, r) = (_matrix_shape(file, name) for name in stored.values())
    if not r or ranks != r * len(names) or rows % len(names):
        raise InputError(
            f"{file.path}: A {(ranks, k)} and B {(rows, r)} of {module} are not those of {len(names)} update(s) of one "
            f"rank ({', '.join(names)})"
        )
    d, pieces = rows // len(names), {}
    for index, (name, scaling) in enumerate(zip(names, scalings, strict=True)):
        target = Target(module, name, layer_of(module), r, scaling, (d, k), 0.0)
        pieces[target] = tuple(
            Piece(stored[side], slice(index * size, (index + 1) * size)) for side, size in (("A", r), ("B", d))
        )
    return pieces


def read_loralib(file: TensorFile, alpha: float, slices: Sequence[str] = ()) -> Foreign:
    """The adapter in a loralib checkpoint, which stores neither alpha nor which slices of a fused projection are on.

    `slices`: these weight types, or `all` if it adapts fused projections as a whole; scaling = alpha / r as in loralib.

    Raises InputError if the file is damaged, or does not agree with `slices`.
    """
    pieces: dict[Target, tuple[Piece, ...]] = {}
    for module in [name.removesuffix(".lora_A") for name in file.shapes if name.endswith(".lora_A")]:
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
        r = file.shapes.get(f"{module}.lora_B", (0, 0))[-1]
        pieces |= loralib_pieces(file, module, names, [alpha / max(r, 1)] * len(names))
    return Foreign(str(file.path), file, pieces, {name: name for name in file.shapes if ".lora_" not in name})
