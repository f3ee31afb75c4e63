"""The list of a study's runs, sweep.jsonl: a line a run, its run_id and role, and where it failed why.

A sweep keeps a list of its own while it goes, and puts it in the place of the study's when it has ended. So a sweep
that is killed leaves the study's list as it was, and two at once lose nothing: what another sweep has put there since
this one began is kept beside this one's.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import SoftFileLease

SWEEP = "sweep.jsonl"
PARTS = ".sweep-*.jsonl"  # lists of sweeps that have not ended


class RunList:
    """The list of one sweep, for the study in `folder`; the runs that were listed before stay if it is of a `part` of
    the study. Raises OSError where that cannot be written."""

    def __init__(self, folder: Path, part: bool = False) -> None:
        self.folder, self.sweep = folder, secrets.token_hex(4)
        folder.mkdir(parents=True, exist_ok=True)
        self.earlier = set() if part else {entry.get("sweep") for entry in _entries(folder / SWEEP)}
        self.parts = set(folder.glob(PARTS))
        self.own = folder / f".sweep-{self.sweep}.jsonl"

    def add(self, entry: Mapping[str, str]) -> None:
        """Note a run that has ended, for who reads the list of a sweep that was killed."""
        with self.own.open("a", encoding="utf-8") as file:
            file.write(self._line(entry))

    def commit(self, entries: Iterable[Mapping[str, str]]) -> None:
        """Make `entries`, in their order, the study's list, with those of sweeps that have ended meanwhile."""
        with SoftFileLease(self.folder / ".sweep.lease"):
            others = [entry for entry in _entries(self.folder / SWEEP) if entry.get("sweep") not in self.earlier]
            lines = {self._key(entry): self._line(entry) for entry in entries}
            lines |= {self._key(entry): json.dumps(entry) + "\n" for entry in others if self._key(entry) not in lines}
            temporary = self.folder / f".{SWEEP}-{self.sweep}"
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(lines.values())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / SWEEP)
        for part in (*self.parts, self.own):  # what was begun before this sweep and never ended is superseded
            part.unlink(missing_ok=True)

    def _line(self, entry: Mapping[str, str]) -> str:
        return json.dumps({**entry, "sweep": self.sweep}, ensure_ascii=False) + "\n"

    @staticmethod
    def _key(entry: Mapping[str, Any]) -> tuple[Any, Any]:
        return entry.get("run_id"), entry.get("role")


def _entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a list that can be read; who derives tables from it says what is wrong with the others."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def exists(folder: Path) -> bool:
    """True if there is the list of a sweep that has ended, or was killed."""
    return (folder / SWEEP).exists() or any(folder.glob(PARTS))


def text(folder: Path) -> str:
    """The study's list; where no sweep has ended yet, what those that were killed have left. Raises OSError if there is
    neither."""
    path = folder / SWEEP
    parts = sorted(folder.glob(PARTS), key=lambda part: part.stat().st_mtime)
    if path.exists() or not parts:
        return path.read_text(encoding="utf-8")
    return "".join(part.read_text(encoding="utf-8") for part in parts)
