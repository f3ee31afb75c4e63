"""Files of named tensors, read one tensor at a time: safetensors, and pickled ones that hold nothing but tensors."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora.config import InputError

WRAPPERS = ("model_state_dict", "state_dict")  # keys under which training scripts put the names and tensors


class TensorFile(ABC):
    """Names and shapes of the tensors of one file; a tensor is read when it is asked for."""

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.path = path
        self.shapes = dict(shapes)

    def tensor(self, name: str) -> Tensor:
        """One tensor, as it is stored. Raises InputError if the file lacks it or is damaged."""
        return self.tensors([name])[name]

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Several tensors, in the order of `names`. Raises InputError as `tensor`."""
        names = list(names)
        missing = sorted(set(names) - set(self.shapes))
        if missing:
            raise InputError(f"{self.path} lacks the tensor {missing[0]}: it is damaged or belongs to another model")
        return self._read(names)

    @abstractmethod
    def _read(self, names: list[str]) -> dict[str, Tensor]: ...


class Safetensors(TensorFile):
    """A .safetensors file. Raises InputError if it is damaged."""

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path} is damaged ({error}): copy or train it again") from error
        super().__init__(path, shapes)

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        try:
            with safe_open(self.path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise InputError(f"{self.path} is damaged ({error}): copy or train it again") from error


class Pickled(TensorFile):
    """A file of `torch.save`. Only tensors are unpickled, and mapped from disk where its format allows.

    Raises InputError if it is damaged, or holds anything but names and tensors.
    """

    def __init__(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # torch.load raises pickle, zip, end-of-file and runtime errors for a damaged file
            raise InputError(
                f"{path} cannot be read as plain tensors ({type(error).__name__}): it is damaged, or holds other "
                "objects, which are not unpickled because they could run code"
            ) from error
        if isinstance(state, dict):
            state = next((state[key] for key in WRAPPERS if key in state), state)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise InputError(f"{path} holds other things than names and tensors: give a file of weights alone")
        self._state: dict[str, Tensor] = state
        super().__init__(path, {name: tuple(value.shape) for name, value in state.items()})

    def _read(self, names: list[str]) -> dict[str, Tensor]:
        return {name: self._state[name] for name in names}


def open_tensors(path: Path) -> TensorFile:
    """A file of tensors: safetensors by its name, else pickled. Raises InputError if it is missing or damaged."""
    if not path.is_file():
        there = "is a folder, not a file" if path.is_dir() else "does not exist: is its folder complete?"
        raise InputError(f"{path} {there}")
    return Safetensors(path) if path.suffix == ".safetensors" else Pickled(path)
