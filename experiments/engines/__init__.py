"""Where the runs of a sweep are computed: in this process, by workers on this machine, on Slurm, or by Ray.

An engine is one file: a class that takes runs and says how each ended. Which run comes next, what is tried again and
what is printed is the parent's matter (`experiments.sweep`), the same for all engines.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from experiments.config import RunConfig
from lora.config import InputError


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
    threads: int | None = None  # of a run whose settings give none

    def prepared(self, config: RunConfig) -> RunConfig:
        """The config as the engine computes it: with its threads, and a results folder that holds anywhere."""
        runtime = replace(config.runtime, threads=config.runtime.threads or self.threads)
        return replace(config, runtime=runtime, results_dir=str(Path(config.results_dir).absolute()))

    @abstractmethod
    def submit(self, ticket: int, config: RunConfig) -> None:
        """Begin a run; `ticket` is its number in what `finished` says."""

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


def make(config: Mapping[str, Any], configs: Sequence[RunConfig], grid: int) -> Engine:
    """The engine that `engine` of a config asks for, for these runs, of a grid of so many runs.

    Raises InputError if there is no such engine, it is not installed, or its settings cannot work.
    """
    engine = config["engine"]
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "sizing")
    if engine["name"] not in known:
        raise InputError(f"unknown engine {engine['name']!r}; there are: {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{engine['name']}").make(config, configs, grid)
