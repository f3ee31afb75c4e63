"""A command: its jobs are done as one sweep, and what came of them is said to who started it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import only
from experiments.sweep import Entry, Sweep
from lora.config import InputError


class Done(NamedTuple):
    """What a command did: its exit code, and the folder of the study whose list of runs it has written, if any."""

    code: int
    study_dir: Path | None


done = Done(0, None)  # of the last `do`: Hydra's jobs return nothing to who started them


def do(entries: Sequence[Entry]) -> None:
    """Do the jobs of a command; `done` says how it went. Bad input and a full disk are one line."""
    global done
    try:
        kept = only.keep(entries)
        sweep = Sweep(kept, part=len(kept) < len(entries))
        done = Done(sweep.run(), sweep.folder)
    except InputError as error:  # caught here: Hydra would print a traceback of the one run that is no grid
        done = refused(str(error))
    except OSError as error:
        done = refused(reason(error))


def reason(error: OSError) -> str:
    """What the system says of a file or folder of results, in one line."""
    return f"{error.filename or 'the results folder'}: {error.strerror or error}; choose another with results_dir="


def refused(message: str) -> Done:
    """Print why nothing could be done."""
    print(f"error: {message}", file=sys.stderr)
    return Done(2, None)
