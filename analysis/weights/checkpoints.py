"""The files of a stored model, in a folder or on the hub, and their tensors, whole or sharded, read one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from torch import Tensor

from experiments.hub import locate
from lora.config import InputError
from lora.tensor_files import TensorFile, open_tensors, read_json

SINGLE, INDEXED = ("model.safetensors", "pytorch_model.bin"), ".index.json"


class Files:
    """The files of a folder, a hub id or `asset:<name>`; those of the hub are downloaded one by one, when needed.

    Raises InputError for a folder or asset that does not exist.
    """

    def __init__(self, source: str) -> None:
        self.source, self.place = source, locate(source)
        self.folder = Path(self.place) if Path(self.place).is_dir() else None
        self._offline = ""  # why the hub could not be asked for a file that is not in the cache

    def find(self, name: str) -> Path | None:
        """Where a file is, or None. Raises InputError if the hub has no such id, or does not let it be read."""
        if self.folder:
            return self.folder / name if (self.folder / name).is_file() else None
        try:
            return Path(hf_hub_download(self.place, name))
        except EntryNotFoundError as error:
            if isinstance(error, OSError):
                self._offline = _one_line(error)
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise InputError(f"{self.source} is no folder here, nor on the hub: {_one_line(error)}") from error

    def absent(self, what: str) -> InputError:
        """The error that something has not been found, and that the hub could not be asked, if it could not."""
        if self._offline:
            return InputError(f"{self.source} is no folder here, and the hub is out of reach: {self._offline}")
        return InputError(f"{self.source} {what}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class Checkpoint:
    """The tensors of a model in one file or in several. `where`: tensor -> its file's name, which `open_file` opens."""

    def __init__(self, source: str, where: dict[str, str], open_file: Callable[[str], TensorFile]) -> None:
        self.source, self.where, self._open_file = source, where, open_file
        self._last: tuple[str, Tensor] | None = None

    @classmethod
    def of_file(cls, file: TensorFile, source: str | None = None) -> Checkpoint:
        """The tensors of one file."""
        return cls(source or str(file.path), dict.fromkeys(file.shapes, file.path.name), lambda _: file)

    @classmethod
    def search(cls, files: Files) -> Checkpoint:
        """The weights among a model's files. Raises InputError if there are none, or the index is damaged."""

        @functools.cache
        def open_file(name: str) -> TensorFile:
            path = files.find(name)
            if path is None:
                raise files.absent(f"lacks {name}, which its index names: copy or download it again")
            return open_tensors(path)

        for name in SINGLE:
            if path := files.find(name):
                return cls.of_file(open_tensors(path), files.source)
            if index := files.find(name + INDEXED):
                where = read_json(index).get("weight_map")
                if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
                    raise InputError(f"{index} is damaged: it has no weight_map from tensors to files")
                return cls(files.source, where, open_file)
        raise files.absent(f"has no weights: it needs {' or '.join(SINGLE)}, whole or sharded with an index")

    def tensor(self, name: str) -> Tensor:
        """One tensor, as it is stored. Raises InputError if it or its file is missing or damaged."""
        return self._open_file(self.where[name]).tensor(name)

    def dtype(self, name: str) -> str:
        """torch's name of the type in which a tensor is stored. Raises InputError as `tensor`."""
        return self._open_file(self.where[name]).dtypes[name]

    def weight(self, name: str) -> Tensor:
        """One tensor that holds finite numbers in floating point. Raises InputError as `tensor`, and if it does not.

        The last one is kept: a fused projection is asked for once for each of its weight types, and read once.
        """
        if self._last is None or self._last[0] != name:
            self._last = name, self._open_file(self.where[name]).weights([name])[name]
        return self._last[1]
