"""Slurm's own commands: whether it takes a job, what is in the queue, and out of it with jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lora.config import InputError

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "sinfo")
ANSWER = 60  # seconds that a command may take
GONE = 60  # seconds that cancelled jobs may take to leave the queue
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
NEVER = {
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
}


class Entry(NamedTuple):
    """A job in the answer of squeue: its state, and why it is in it."""

    state: str
    reason: str

    @property
    def held(self) -> bool:
        """A node could not start it, and Slurm keeps it until somebody lets it go."""
        return "requeued held" in self.reason

    @property
    def waits(self) -> bool:
        """It is queued or running."""
        return self.state not in ENDED and not self.held

    @property
    def hopeless(self) -> bool:
        """It asks for more than a limit ever lets it have."""
        return self.state == "PENDING" and (self.reason in NEVER or "PerJob" in self.reason)


@contextlib.contextmanager
def outside_a_job() -> Iterator[None]:
    """Hides that this process itself runs in a job of Slurm, whose variables its jobs would inherit."""
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        own = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
        hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(own)}
        if "SLURM_CONF" in hidden:
            os.environ["SLURM_CONF"] = hidden["SLURM_CONF"]
    try:
        yield
    finally:
        os.environ.update(hidden)


def check(flags: Sequence[str]) -> None:
    """Ask Slurm whether it would take a job with these options of sbatch. Raises InputError if not, with its reason."""
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    if absent:
        raise InputError(f"engine=slurm needs a machine that submits to Slurm: there is no {absent[0]} here")
    with outside_a_job():
        tried = _run("sbatch", "--test-only", *flags, "--wrap=true")
    if tried is None or tried.returncode:
        answer = reason(tried.stderr) if tried else f"no answer for {ANSWER} s"
        raise InputError(f"Slurm refuses such jobs ({' '.join(flags)}): {answer}{_partitions()}")


def reason(said: str) -> str:
    """Why sbatch failed, of what it said."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("Try ")]
    return lines[-1].removeprefix("sbatch: ").removeprefix("error: ").removeprefix("allocation failure: ")


def entries(name: str) -> dict[str, Entry] | None:
    """The jobs of a name by job id, ended ones too while Slurm remembers them; None if it does not answer."""
    answer = _run("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%i|%T|%r")
    if answer is None or answer.returncode:
        return None
    rows = [line.strip().split("|", 2) for line in answer.stdout.splitlines()]
    return {job: Entry(state, why) for job, state, why in rows}


def cancel(name: str, *jobs: str) -> None:
    """Take the jobs of a name out of the queue, or these of them, and wait until they are."""
    end = time.monotonic() + GONE
    while time.monotonic() < end:
        _run("scancel", f"--name={name}", *jobs)
        left = entries(name)
        if left is not None and not any(entry.waits for job, entry in left.items() if not jobs or job in jobs):
            return
        time.sleep(0.5)


def _partitions() -> str:
    """The partitions, in words for the end of a message."""
    answer = _run("sinfo", "--noheader", "--format=%R|%a|%c|%m|%G|%l")
    if answer is None or answer.returncode or not answer.stdout.strip():
        return ""
    said = []
    for line in answer.stdout.splitlines()[:8]:
        name, state, cpus, memory, gpus, limit = (part.strip() for part in line.split("|"))
        has = f"{cpus} CPUs, {memory} MB, {'no GPU' if gpus == '(null)' else gpus}, at most {limit}"
        said.append(f"{name} ({has}{'' if state == 'up' else ', ' + state})")
    return f"; partitions here: {'; '.join(said)}"


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    """What a command did; None if it took too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return None
