"""Where a published corpus is: in a folder of the user's, or on the hub, which is asked first whether it answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from experiments import hub
from experiments.paths import user_path
from lora.config import InputError

PARQUET = "refs/convert/parquet"  # where the hub has the data of repositories that are loading scripts, no longer run


def load_dataset(repository: str, *configuration: str, **options: Any) -> Any:
    """`datasets.load_dataset`, from the cache alone where the hub does not answer: it would wait for minutes. Raises
    ConnectionError with what is wrong with the hub, if it is that, and else what the libraries raise."""
    reason = hub.reach(repository, "dataset")
    try:
        return datasets.load_dataset(repository, *configuration, **options)
    except Exception as error:  # the hub's client raises errors of several libraries
        if reason:
            raise ConnectionError(reason) from error
        raise


def from_hub(repository: str, files: str, *configuration: str, **options: Any) -> Any:
    """The splits of a repository. Raises InputError, naming the `files` that data_dir takes, where it cannot be had."""
    try:
        return load_dataset(repository, *configuration, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        part = "".join(f" ({name})" for name in (*configuration, options.get("data_dir")) if name)
        raise InputError(
            f"cannot load {repository}{part} from the Hugging Face hub, nor from its cache ({reason}); "
            f"set task.data_dir to a folder with {files}"
        ) from error


def folder(data_dir: str) -> Path:
    """The folder; raises InputError if it is not there."""
    path = user_path(data_dir)
    if not path.is_dir():
        raise InputError(f"task.data_dir: there is no folder {path}")
    return path


def official_files(data_dir: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """The file of each split, the first of its names that is there: all three, or validation alone.

    Raises InputError if there is no such folder, or some other set of files in it.
    """
    place = folder(data_dir)
    files = {}
    for split, given in names.items():
        there = [place / name for name in given if (place / name).is_file()]
        if there:
            files[split] = there[0]
    missing = [" or ".join(given) for split, given in names.items() if split not in files]
    if missing and set(files) != {"validation"}:
        alone = " or ".join(names["validation"])
        raise InputError(
            f"task.data_dir: there is no {missing[0]} in {place}; it should have a file of each split, or {alone} alone"
        )
    return files
