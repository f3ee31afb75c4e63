"""The processes of one command: torchrun starts them, one for each device, and they compute every run together.

    torchrun --nproc-per-node 2 -m lora_lab run runtime.parallel=ddp …

The first is the command as it was typed: it alone locks, stores and prints. It tells the others each run that is to be
computed, and they compute it with it, writing into a folder that is thrown away.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from experiments.config import RunConfig
from experiments.engines import Status, sizing
from experiments.engines.local import Inline
from experiments.parallel import rank, size
from experiments.trackers import Tracker
from experiments.worker import work
from lora.config import InputError

# For so long a process waits for another: the first may be waiting for runs that other commands compute. One that has
# died is noticed at once, not by this.
PATIENCE = datetime.timedelta(days=2)

R = TypeVar("R")


def lead(command: Callable[[], R]) -> R:
    """What `command` returns, in the first process; the others compute its runs with it, and end."""
    join()
    if rank():
        _follow()
        sys.exit(0)
    done = command()
    if not Together.broken:
        dismiss()
    return done


def join() -> None:
    """Wait for the other processes; on GPUs this one has that of its number on its machine."""
    number, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number < gpus:
        torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)


def dismiss() -> None:
    """The first process tells the others that there are no more runs."""
    _told(None)
    dist.destroy_process_group()


def _follow() -> None:
    """Compute every run that the first process tells of, until it tells of none. Says nothing, but what broke here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: torchrun ends this process when the first has ended
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)
    try:
        from experiments.compute import compute

        while config := _told(None):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    compute(config, Path(folder))
                except InputError:  # of all processes alike (`parallel.agreed`): the first says it
                    continue
        dist.destroy_process_group()
    except Exception as error:
        if not _lost(error):
            print(f"error: process {rank()} of {size()}: {_line(error)}", file=sys.stderr)
        os._exit(1)  # without waiting for the others, which see that


def _told(config: RunConfig | None) -> RunConfig | None:
    """The run of which the first process tells the others; None: there are no more."""
    said = [config]
    dist.broadcast_object_list(said, 0)
    return said[0]


def _lost(error: Exception) -> bool:
    """Whether it was another process whose end broke this one: as gloo and NCCL say it."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL", "by peer"))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Together(Inline):
    """The engine of all processes of torchrun: one run after the other. What broke a run ends the command, since the
    others cannot go on from there.

    Raises InputError for runs without runtime.parallel, and for runs with it that torchrun has not started.
    """

    broken = False  # other processes may be in the middle of a run

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        asked = {config.runtime.parallel for config in configs}
        if not dist.is_initialized():
            how = next(each for each in [*sorted(filter(None, asked)), "ddp"])
            raise InputError(
                f"runtime.parallel = {how} is a process for each device: start them by torchrun --nproc-per-node N -m "
                f"lora_lab run runtime.parallel={how} …, or by engine=slurm engine.processes=N"
            )
        if None in asked:
            raise InputError(f"torchrun has started {size()} processes: give runtime.parallel=ddp, or fsdp")
        super().__init__(max(1, sizing.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", size()))))

    def submit(self, ticket: int, config: RunConfig) -> None:
        """Raises InputError where a run broke."""
        outcome = work(config, compute)
        if outcome.status is Status.BROKEN:
            Together.broken = True
            raise InputError(f"the run ended: {outcome.message}")
        self.ended.append((ticket, outcome))


def compute(config: RunConfig, folder: Path, tracker: Tracker | None) -> None:
    """`experiments.compute.compute`, by all processes; of the first. Raises RuntimeError if another has ended."""
    from experiments.compute import compute

    Together.broken = True
    _told(config)
    try:
        compute(config, folder, tracker)
    except InputError:
        Together.broken = False
        raise
    except Exception as error:
        if _lost(error):
            raise RuntimeError("another of its processes has ended (killed, or out of memory)") from error
        raise
    Together.broken = False
