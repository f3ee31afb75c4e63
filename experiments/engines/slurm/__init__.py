"""The engine of a cluster with Slurm: a job for each run, through submitit.

submitit writes a job's script and brings its result back. Whether a job has left the queue is asked of squeue alone,
since a cluster without accounting has no sacct.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import shlex
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.config import Group, RunConfig, setting
from experiments.engines import Engine, Outcome, Status
from experiments.engines.slurm import queue
from experiments.rules import Rule, any_text, listing, mapping, positive, text, whole
from experiments.worker import work
from lora.config import InputError

SILENCE = 900  # seconds for which Slurm may leave every question unanswered
STARTS = 3  # times that sbatch is tried while Slurm is too busy to answer
BUSY = ("Socket timed out", "Unable to contact slurm controller", "temporarily unavailable")
QUEUED = 64  # what engine.jobs = auto means: more in the queue than most users may run at once
ANYTHING = Rule("it may be anything", lambda value: True)  # sbatch says what it may be


@dataclass(frozen=True, kw_only=True)
class SlurmSettings(Group):
    """Settings of conf/engine/slurm.yaml. memory is in GB, minutes a time limit; null is the cluster's."""

    group = "engine"
    name: str = setting(text())
    jobs: int | str = setting(whole().or_word("auto"))
    cpus: int = setting(whole())
    gpus: int | None = setting(whole(0).or_null())
    processes: int | None = setting(whole().or_null(), default=None)
    memory: float | None = setting(positive().or_null())
    minutes: int | None = setting(whole().or_null())
    partition: Any = setting(ANYTHING)
    account: Any = setting(ANYTHING)
    qos: Any = setting(ANYTHING)
    constraint: Any = setting(ANYTHING)
    setup: list[str] = setting(listing(any_text()))
    more: Mapping[str, Any] = setting(mapping(ANYTHING))
    poll: float = setting(positive())
    grace: float = setting(positive())

    @property
    def most_jobs(self) -> int:
        """How many jobs may be in the queue at once."""
        return QUEUED if self.jobs == "auto" else int(self.jobs)

    @property
    def sbatch_flags(self) -> dict[str, Any]:
        """What these settings are in sbatch's own words."""
        named = {"cpus-per-task": self.cpus, "gpus-per-node": self.gpus, "time": self.minutes}
        named |= {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        flags: dict[str, Any] = {flag: value for flag, value in named.items() if value}
        if self.memory:
            flags["mem"] = f"{round(1024 * self.memory)}M"
        return flags | dict(self.more)


def make(config: Mapping[str, Any], configs: Sequence[RunConfig], grid: int) -> Slurm:
    """The engine of a sweep's config. Raises InputError as `Slurm`."""
    parallel = next((run.runtime.parallel for run in configs if run.runtime.parallel), None)
    return Slurm(configs[0].given["engine"], Path(config["results_dir"]), parallel)


class Slurm(Engine):
    """`settings` are of SlurmSettings; `results` is a folder that all nodes see; `parallel` is runtime.parallel of runs
    that torchrun starts in their jobs, as so many processes.

    submitit's files lie in results/.slurm/<name>, where <name> is also what all jobs of this sweep are called. Those of
    a run that was lost or broke stay, for their logs. Raises InputError if submitit or Slurm is not installed, and if
    Slurm refuses such jobs, and if it is not said how many processes a parallel run has.
    """

    def __init__(self, settings: Mapping[str, Any], results: Path, parallel: str | None = None) -> None:
        self.settings = SlurmSettings.of(settings)
        processes = self.settings.processes or (self.settings.gpus if parallel else None)
        if bool(processes) is not bool(parallel):
            raise InputError(
                f"runtime.parallel = {parallel}: give engine.processes=N, or engine.gpus=N, of a run"
                if parallel
                else f"engine.processes = {processes} is for runs with runtime.parallel=ddp, or fsdp"
            )
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise InputError("engine=slurm needs submitit: pip install 'lora-lab[slurm]'") from error
        self.slots, self.threads = self.settings.most_jobs, max(1, self.settings.cpus // (processes or 1))
        self.name = f"lora-lab-{uuid.uuid4().hex[:8]}"
        flags = self.settings.sbatch_flags
        queue.check([f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()])
        self.folder = results.absolute() / ".slurm" / self.name
        # exec: the job is Python itself, with Slurm's time to end when it is told to, and no shell that ends first.
        python, setup = shlex.quote(sys.executable), list(self.settings.setup)
        if processes:
            torchrun = f"-m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node {processes}"
            python = f"{python} {torchrun} --no-python {python}"
            setup.append("trap '' USR2")  # as `compute` does
        self.executor = submitit.SlurmExecutor(self.folder, max_num_timeout=0, python=f"exec {python}")
        self.executor.update_parameters(
            job_name=self.name,
            additional_parameters=flags,
            setup=setup,
            use_srun=False,  # one process: it may use all that its job has
            time=None,
            wckey=None,
        )
        self.jobs: dict[int, Any] = {}  # submitit's, by ticket
        self.missed: dict[int, float] = {}  # when a job was first seen to be out of the queue without a result
        self.asked, self.answered = 0.0, time.monotonic()
        self.keep = False  # submitit's files: they have logs that say what went wrong

    def submit(self, ticket: int, config: RunConfig) -> None:
        """Raises InputError if Slurm does not take the job."""
        for attempt in range(1, STARTS + 1):
            try:
                with (
                    queue.outside_a_job(),
                    contextlib.redirect_stderr(io.StringIO()),
                ):  # submitit prints what it also raises
                    self.jobs[ticket] = self.executor.submit(compute, config)
                return
            except RuntimeError as error:  # submitit's FailedJobError has what sbatch said
                reason = queue.reason(str(error))
                if attempt == STARTS or not any(words in str(error) for words in BUSY):
                    raise InputError(f"sbatch does not take another job: {reason}") from error
                time.sleep(5 * attempt)

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Raises InputError if Slurm will never start a job, or has answered nothing for SILENCE seconds."""
        end = time.monotonic() + seconds
        while True:
            ended = self._results()
            if not ended and self.jobs and time.monotonic() - self.asked >= self.settings.poll:
                ended = self._losses()
            if ended or time.monotonic() >= end:
                for ticket, _ in ended:
                    del self.jobs[ticket]
                    self.missed.pop(ticket, None)
                return ended
            time.sleep(min(0.5, max(0.0, end - time.monotonic())))

    def close(self) -> None:
        """Takes the jobs out of the queue by their name, those too whose submission was interrupted, and waits."""
        self.jobs.clear()
        if self.folder.exists():
            queue.cancel(self.name)
            if self.keep:
                for link in self.folder.glob(".submission_file_*"):
                    link.unlink()
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # another sweep's are there
                    self.folder.parent.rmdir()

    def _results(self) -> list[tuple[int, Outcome]]:
        """The runs whose jobs have left a result."""
        if self.folder.exists():
            self.folder.chmod(self.folder.stat().st_mode)  # network file systems look again at a folder that changed
        ended = []
        for ticket, job in self.jobs.items():
            file = job.paths.result_pickle
            if file.exists():  # renamed to its place when it is whole
                kind, result = pickle.loads(file.read_bytes())
                if kind == "success":
                    for leftover in self.folder.glob(f"{job.job_id}_*"):
                        leftover.unlink()
                else:  # `work` raises nothing: its job could not begin it
                    result = Outcome(Status.BROKEN, f"{_last_line(result)}; the log is {job.paths.stderr}")
                    self.keep = True
                ended.append((ticket, result))
        return ended

    def _losses(self) -> list[tuple[int, Outcome]]:
        """The runs whose jobs have been out of the queue for `grace` seconds, and left no result."""
        entries = queue.entries(self.name)
        self.asked = time.monotonic()
        if entries is None:
            if self.asked - self.answered > SILENCE:
                raise InputError(
                    f"Slurm has not answered for {SILENCE // 60} minutes: start the same command again when squeue does"
                )
            return []
        self.answered = self.asked
        lost = []
        for ticket, job in self.jobs.items():
            entry = entries.get(job.job_id)
            if entry is not None and entry.hopeless:
                raise InputError(f"Slurm will not start such jobs: {entry.reason} (scontrol show job {job.job_id})")
            if entry is not None and entry.waits:
                self.missed.pop(ticket, None)
            elif self.asked - self.missed.setdefault(ticket, self.asked) >= self.settings.grace:
                lost.append((ticket, Outcome(Status.LOST, self._why(job, entry))))
        return lost

    def _why(self, job: Any, entry: queue.Entry | None) -> str:
        """Why a job left no result, as far as it is known, and where to read more."""
        if entry and entry.held:
            queue.cancel(self.name, job.job_id)
            return f"no node could start Slurm job {job.job_id}: {entry.reason}"
        ended = f"ended as {entry.state}{queue.exit_of(job.job_id)}" if entry else "left the queue"
        how = f"Slurm job {job.job_id} {ended}"
        log: Path = job.paths.stderr
        if log.exists():
            self.keep = True
            last = _last_line(log.read_text(errors="replace"))
            return f"{how}, without a result{f' ({last})' if last else ''}; its log is {log}"
        if entry and entry.state == "CANCELLED":
            return f"{how} before it began"
        return f"{how} and wrote no log: do all nodes see {self.folder}?"


def compute(config: RunConfig) -> Outcome:
    """`work` in a job. Told to end, it ends at once and lets go of what it holds, where submitit would go on.

    The warning of a time limit, at which submitit ends a job, is ignored: what is left of its time may be enough.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if not config.runtime.parallel:
        return work(config)
    from experiments import processes  # torchrun has started this one, among others

    return processes.lead(lambda: work(config, processes.compute))


def _last_line(text: str) -> str:
    return " ".join(text.strip().rpartition("\n")[2].split())[:300]
