"""Frees the disk of what tables do not need: the adapters of runs that are recorded, or runs that no study lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from experiments.listing import SWEEP
from experiments.records import archive
from experiments.records.source import Runs
from experiments.records.transfer import pack
from experiments.store import Store
from lora.config import InputError


class Freed(NamedTuple):
    """Something that can go: a folder, and the bytes that it takes."""

    folder: Path
    size: int


def studies(runs_dir: Path) -> list[Path]:
    """The study folders <preset>/<study> beside a folder of runs that list runs."""
    folders = sorted(path for path in runs_dir.parent.glob("*/*") if path.parent != runs_dir and path.is_dir())
    return [path for path in folders if any((path / name).is_file() for name in (SWEEP, archive.ARCHIVE))]


def plan(runs_dir: Path, unlisted: bool) -> list[Freed]:
    """What of a folder of runs can go, largest first: the adapters of the runs that a study lists or, if `unlisted`,
    whole runs that no study lists, those that failed included.

    Raises InputError if there is no such folder, or a study's list is damaged.
    """
    if not runs_dir.is_dir():
        raise InputError(f"there is no folder of runs {runs_dir}")
    listed = {run_id for study_dir in studies(runs_dir) for run_id in _listed(study_dir, runs_dir)}
    found = []
    for folder in sorted(path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")):
        known = folder.name.removesuffix(".failed") in listed
        if unlisted and not known:
            found.append(Freed(folder, _size(folder)))
        elif not unlisted and known and (folder / "adapter").is_dir():
            found.append(Freed(folder / "adapter", _size(folder / "adapter")))
    return sorted(found, key=lambda freed: -freed.size)


def prune(runs_dir: Path, unlisted: bool) -> list[Freed]:
    """Removes what `plan` names, and returns it. The studies that list runs are packed first.

    Raises InputError as `plan` and `experiments.records.transfer.pack`, and then has removed nothing.
    """
    found = plan(runs_dir, unlisted)
    if found:
        for study_dir in studies(runs_dir):
            pack(study_dir, runs_dir)
    store = Store(runs_dir)
    for freed in found:
        store.remove(freed.folder)
    return found


def _listed(study_dir: Path, runs_dir: Path) -> Iterator[str]:
    """The runs of a study, those that failed and those that are recorded alone included."""
    sweep = Runs(study_dir, runs_dir).sweep
    yield from sweep.roles
    yield from dict(sweep.failed)
    yield from (record.run_id for record in archive.read(study_dir / archive.ARCHIVE))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
