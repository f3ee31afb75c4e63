"""What computes a run, on any engine: the claim, the work, and how it ended, said as a value."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from experiments import trackers
from experiments.config import RunConfig
from experiments.engines import Outcome, Status
from experiments.store import DivergedError, definition, run_id, store_of
from lora.config import InputError

Compute = Callable[[RunConfig, Path, trackers.Tracker | None], None]


def work(config: RunConfig, compute: Compute | None = None) -> Outcome:
    """Compute a run, unless it is stored or another process is computing it; by `experiments.compute`, or as is given.

    Raises nothing but what ends the process: an exception of any kind becomes the outcome, since many cannot cross from
    one process to another. The traceback of one that is no InputError is left in <run_id>.failed.
    """
    try:
        defined, store = definition(config.given), store_of(config.results_dir)
        identifier = run_id(defined)
        weights = config.runtime.keep_weights == "all"
        with store.claim(identifier) as claimed:
            if store.holds(identifier, weights):
                return Outcome(Status.STORED)
            if not claimed:
                return Outcome(Status.BUSY)
            store.raise_if_diverged(identifier)
            begin = compute or _alone()
            with store.writing(identifier, defined) as folder, _tracker(config, identifier, defined) as tracker:
                begin(config, folder, tracker)
        return Outcome(Status.COMPUTED)
    except DivergedError as error:
        return Outcome(Status.DIVERGED, str(error))
    except InputError as error:
        return Outcome(Status.REFUSED, str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        return Outcome(Status.BROKEN, f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({where})")


def _alone() -> Compute:
    from experiments.compute import compute  # imports torch: seconds that a stored run does not need

    return compute


def _tracker(
    config: RunConfig, identifier: str, defined: dict[str, Any]
) -> AbstractContextManager[trackers.Tracker | None]:
    if config.tracker is None:
        return nullcontext()
    return trackers.tracking(config.tracker, Path(config.results_dir) / config.tracker, identifier, defined)
