"""Where the runs of a sweep are computed: in this process, by workers on this machine, on Slurm, or by Ray.

An engine is one file: a class that takes runs and says how each ended. Which run comes next, what is tried again and
what is printed is the parent's matter (`experiments.sweep`), the same for all engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from types import TracebackType
from typing import Any, NamedTuple, Self


class Status(StrEnum):
    """How the attempt to compute a run ended."""

    COMPUTED = "computed"
    STORED = "stored"  # it was there already
    BUSY = "busy"  # another process is computing it
    REFUSED = "refused"  # its settings cannot work (InputError)
    DIVERGED = "diverged"  # its loss was not finite (DivergedError)
    BROKEN = "broken"  # any other exception
    LOST = "lost"  # the worker ended without a result: killed, out of memory, timed out, cancelled


class Outcome(NamedTuple):
    """How a run ended and, where it was not computed, why: one line."""

    status: Status
    message: str = ""


class Engine(ABC):
    """Computes runs by `experiments.worker.work`, somewhere. A context manager: leaving it ends what still runs."""

    slots: int  # runs that may be under way at once; the parent submits no more

    @abstractmethod
    def submit(self, ticket: int, config: Mapping[str, Any]) -> None:
        """Begin the run of a resolved config; `ticket` is its number in what `finished` says."""

    @abstractmethod
    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """The runs that have ended since the last call, waiting at most `seconds` for the first."""

    @abstractmethod
    def close(self) -> None:
        """End every run under way, and whatever computes it; nothing goes on after it returns."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
