"""Files of named tensors, read one tensor at a time: safetensors, and pickled ones that hold nothing but tensors; and
the JSON beside them."""

from __future__ import annotations

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lora.errors import InputError

# Keys under which training scripts put the names and tensors
WRAPPERS = ("model_state_dict", "state_dict", "model", "module", "net", "network", "weights")
PLAIN = ("float64", "float32", "float16", "bfloat16")  # numbers that are weights by themselves
_SAFETENSORS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
_MAGIC = {b"GGUF": "is a GGUF file of llama.cpp"}  # what other libraries' files begin with


class TensorFile(ABC):
    """Names, shapes and types of the tensors of one file; a tensor is read when it is asked for.

    dtypes     name -> torch's name of its type
    metadata   what a safetensors file says of itself
    left       what else the file holds beside the tensors (an optimizer, an epoch), by name; it is not read
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> None:
        self.path = path
        self.shapes = dict(shapes)
        self.dtypes = dict(dtypes)
        self.metadata: dict[str, str] = {}
        self.left: list[str] = []

    def tensor(self, name: str) -> Tensor:
        """One tensor, as it is stored. Raises InputError if the file lacks it or is damaged."""
        return self.tensors([name])[name]

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Several tensors, in the order of `names`, with the file opened once. Raises InputError as `tensor`."""
        names = list(names)
        missing = sorted(set(names) - set(self.shapes))
        if missing:
            raise InputError(f"{self.path} lacks the tensor {missing[0]}: it is damaged or belongs to another model")
        return self._read(names)

    def weights(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Several tensors as `tensors` gives them, all of them finite numbers in floating point.

        Raises InputError, naming the tensor, for NaN and infinity, and for types that are no weights by themselves (8
        bits, packed codes, complex numbers).
        """
        names = list(names)
        for name in names:
            if name in self.shapes and self.dtypes[name] not in PLAIN:
                raise InputError(
                    f"{self.path}: {name} is stored as {self.dtypes[name]}, which is no weight by itself (quantised?): "
                    "store it in 16 or 32 bits of floating point"
                )
        found = self.tensors(names)
        for name, tensor in found.items():
            if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():  # no copy, as of isfinite
                raise InputError(f"{self.path}: {name} holds NaN or infinity: its training diverged, or it is damaged")
        return found

    @abstractmethod
    def _read(self, names: list[str]) -> dict[str, Tensor]: ...


class Safetensors(TensorFile):
    """A .safetensors file. Raises InputError if it is damaged."""

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                shapes = {name: tuple(found.get_shape()) for name, found in slices.items()}
                dtypes = {
                    name: _SAFETENSORS.get(found.get_dtype(), found.get_dtype()) for name, found in slices.items()
                }
                metadata = dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
        super().__init__(path, shapes, dtypes)
        self.metadata = metadata

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, error) from error


def type_name(tensor: Tensor) -> str:
    """torch's name of a tensor's type, as `float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({' '.join(str(error).split())[:200]}): copy or train it again")


class Pickled(TensorFile):
    """A file of `torch.save`. Only tensors are unpickled, and mapped from disk where its format allows.

    Raises InputError if it is damaged, holds anything but names and tensors, or a tensor that is not held whole.
    """

    def __init__(self, path: Path) -> None:
        state, left = _tensors_of(path, _unpickle(path))
        size = path.stat().st_size
        for name, value in state.items():
            if reason := _not_whole(value, size):
                raise InputError(f"{path}: {name} {reason}: store it as a plain tensor on the CPU")
        self._state = {name: value.detach() for name, value in state.items()}
        dtypes = {name: type_name(value) for name, value in state.items()}
        super().__init__(path, {name: tuple(value.shape) for name, value in state.items()}, dtypes)
        self.left = left

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        return {name: self._state[name] for name in names}


def _unpickle(path: Path) -> Any:
    """What a file of `torch.save` holds. Raises InputError if it is damaged, or holds objects that could run code."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if magic in _MAGIC:
        raise InputError(f"{path} {_MAGIC[magic]}, which is not read here: give the adapter in peft's format")
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch.load raises pickle, zip, end-of-file and runtime errors for a damaged file
        raise InputError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}): it is damaged, or holds other "
            "objects, which are not unpickled because they could run code"
        ) from error


def _check_archive(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for an archive that torch.save does not write: compressed, or one that asks for memory at will
    (`bytearray(n)` is what the unpickler of torch would make, whatever n)."""
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        if entry.filename.endswith("data.pkl") and b"bytearray" in archive.read(entry):
            raise ValueError("it makes a bytearray")


def _tensors_of(path: Path, state: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The names and tensors in what was unpickled, from under the keys of WRAPPERS, and what else there is.

    Raises InputError if there are no such names and tensors, or several sets of them.
    """
    left: list[str] = []
    for _ in WRAPPERS:
        if not isinstance(state, Mapping) or _is_state(state):
            break
        inside = [key for key in WRAPPERS if isinstance(state.get(key), Mapping)]
        sets = [key for key, value in state.items() if isinstance(value, Mapping) and _is_state(value)]
        names = {key: set(state[key]) for key in sets}
        twice = [key for key in sets if any(names[key] & names[other] for other in sets if other != key)]
        if len(inside) > 1 or twice:
            told = ", ".join(map(str, twice or inside))
            raise InputError(f"{path} holds several sets of weights ({told}): give a file with one of them alone")
        if not inside:
            break
        left += [str(key) for key in state if key != inside[0]]
        state = state[inside[0]]
    if not isinstance(state, Mapping) or not _is_state(state):
        raise InputError(f"{path} holds other things than names and tensors: give a file of weights alone")
    return dict(state), left


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(key, str) and isinstance(own, Tensor) for key, own in value.items())


def _not_whole(value: Tensor, size: int) -> str | None:
    """Why a tensor is not one whose numbers are all in a file of `size` bytes."""
    if type(value) not in (Tensor, nn.Parameter):
        return f"is a {type(value).__name__}"
    if value.device.type == "meta":
        return "has no data (it was on the meta device)"
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return "is sparse, nested or quantised"
    needed = value.numel() * value.element_size()
    if needed > size:
        return f"asks for {needed:,} bytes, but its file has {size:,}"
    return None


def open_tensors(path: Path) -> TensorFile:
    """A file of tensors: safetensors by its name, else pickled. Raises InputError if it is missing or damaged."""
    if not path.is_file():
        there = "is a folder, not a file" if path.is_dir() else "does not exist: is its folder complete?"
        raise InputError(f"{path} {there}")
    return Safetensors(path) if path.suffix == ".safetensors" else Pickled(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises InputError if the file is missing or no JSON object."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: is its folder an adapter?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (it holds no JSON object)")
    return content
