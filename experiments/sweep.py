"""A sweep: the runs that its jobs want, each computed once, tuning first, on an engine; the parent keeps the list.

The parent alone writes the list of runs, prints, and decides the exit code. A run that another process is computing is
left to it and looked at again later, so that many copies of one command, on one machine or many, share the grid. A run
whose worker was lost is begun once more.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from experiments import engines, header
from experiments.checks import check_models, in_lines
from experiments.engines import Status
from experiments.jobs import DONE, Job, Wanted, job, resolve, summary
from experiments.listing import RunList
from experiments.progress import Progress, report
from experiments.queue import LOOK_AGAIN, Queue, Run
from experiments.store import store_of
from lora.config import InputError

MANY = 20  # stored runs that have a line each


class Entry(NamedTuple):
    """A job of a sweep: what tells it from the others, its composed config, and the role of its own run: `study`, or
    `tuning`, which may diverge."""

    name: str
    config: DictConfig
    role: str = "study"


class Sweep:
    """The jobs of one command. `run` does them; a sweep of a study leaves its list in the study's folder, and in it, if
    it is of a `part`, what was listed before."""

    def __init__(self, entries: Sequence[Entry], part: bool = False) -> None:
        self.entries, self.config, self.part = entries, entries[0].config, part
        self.store = store_of(self.config.results_dir)
        self.folder = Path(self.config.study_dir) if self.config.study.name else None
        self.progress = Progress(self.config.study.name or "sweep")
        self.jobs: dict[int, Job] = {}
        self.waiting: dict[int, list[Run]] = {}  # by job, the runs that it waits for
        self.role: dict[int, str] = {}  # by job, what it wants them for: the run of a tuning may be its own too
        self.runs: dict[str, Run] = {}
        self.queue = Queue(self.store, self._done)
        self.refused: list[Run] = []  # all for one reason, before any run has ended otherwise
        self.listed: list[list[dict[str, str]]] = [[] for _ in entries]
        self.said: set[str] = set()
        self.without = 0  # jobs that ended without a run of their own

    def run(self) -> int:
        """Do all jobs: 0, or 2 if one failed.

        Raises InputError if no job can begin, or runs are refused for one reason, with nothing that could be computed:
        the settings are at fault. KeyboardInterrupt when it is interrupted, with nothing left running. In both cases
        what was finished is stored, and the study has the list that it had.
        """
        try:
            errors = self._begin()
            self.list = RunList(self.folder, self.part) if self.folder else None
            if self.config.study.name or len(self.entries) > 1:
                self._tell_what_there_is()
            for number, message in errors.items():
                self._fail(number, message)
            self._tell_stored()
            for number in list(self.waiting):
                self._advance(number)
            if self.waiting:
                self._compute()
        finally:
            self.progress.close()
        if self.refused:
            raise InputError(_reason(self.refused[0]))
        entries = list(itertools.chain.from_iterable(self.listed))
        if self.list:
            self.list.commit(entries)
        return 2 if any("error" in entry and entry["role"] == "study" for entry in entries) else 0

    def _begin(self) -> dict[int, str]:
        """Check the settings of all jobs, and ask each for its first runs; what is wrong with some of them, by job."""
        errors: dict[int, str] = {}
        for number, entry in enumerate(self.entries):
            try:
                resolve(entry.config)  # before the first of several learning rates is tried
                self.jobs[number] = job(entry.config, self._say_once, entry.role)
                self._want(number, next(self.jobs[number]))
            except InputError as error:
                errors[number] = str(error)
        if len(errors) == len(self.entries):
            causes = list(dict.fromkeys(errors.values()))
            named = in_lines([(self.entries[number].name, error) for number, error in errors.items()])
            raise InputError(causes[0] if len(causes) == 1 else "; ".join(named))
        self.without = len(errors)
        check_models([run.wanted.config for run in self.queue.pending])
        return errors

    def _want(self, number: int, wanted: Iterable[Wanted]) -> None:
        """A job waits for these runs; each that no other job has asked for is looked up, or put in the queue."""
        self.waiting[number] = []
        for one in wanted:
            self.role[number] = one.role
            run = self.runs.get(one.run_id)
            if run is None:
                run = self.runs[one.run_id] = Run(one, number)
                run.outcome = self.queue.known(run)
                if run.outcome is None:
                    self.queue.add(run)
                elif self.progress.begun:
                    self._say(run)
            self.waiting[number].append(run)

    def _tell_what_there_is(self) -> None:
        stored = sum(run.outcome is not None for run in self.runs.values())
        tuning = sum(run.wanted.role != "study" and not run.outcome for run in self.runs.values())
        self.progress.total = self._total()
        header.runs(f"{self.progress.name} ({self.config.preset.name})", self._total(), stored, tuning)

    def _tell_stored(self) -> None:
        known = [run for run in self.runs.values() if run.outcome]
        stored = [run for run in known if run.outcome and run.outcome.status is Status.STORED]
        if len(stored) > MANY:
            self.progress.skip(len(stored), f"{len(stored)} runs are stored")
        for run in known:
            if len(stored) <= MANY or run not in stored:
                self._say(run)

    def _advance(self, number: int) -> None:
        """Go on with a job, as long as all the runs have ended that it waits for: list them, ask what it wants next."""
        while number in self.waiting and all(run.outcome for run in self.waiting[number]):
            runs = self.waiting.pop(number)
            for run in runs:
                self._list(number, run)
            if self.role[number] != "tuning" and runs[0].wanted.role == "tuning" and len(self.entries) == 1:
                report(self._line(runs[0]))
            try:
                self._want(number, self.jobs[number].send([run.outcome for run in runs if run.outcome]))
            except StopIteration:
                return
            except InputError as error:
                self.without += 1
                self._fail(number, str(error))

    def _fail(self, number: int, message: str) -> None:
        """A job ends without a run of its own."""
        name = self.entries[number].name
        self._note(number, {"run_id": name, "role": "study", "error": message})
        self.progress.ended(": ".join(filter(None, (name, message))), failed=True)

    def _list(self, number: int, run: Run) -> None:
        entry = {"run_id": run.wanted.run_id, "role": self.role[number]}
        if run.outcome and run.outcome.status not in DONE:
            entry["error"] = run.outcome.message
            if not self.store.failure(run.wanted.run_id).is_dir() and self.entries[number].name:
                entry["run_id"] = self.entries[number].name  # nothing else says what it was
        self._note(number, entry)

    def _note(self, number: int, entry: dict[str, str]) -> None:
        self.listed[number].append(entry)
        if self.list:
            self.list.add(entry)

    def _compute(self) -> None:
        """Compute what is queued until no job waits for anything."""
        # Of all runs, not of those that are not stored yet: the threads of a run depend on them.
        configs = [run.wanted.config for run in self.runs.values()]
        wanted = [run.wanted for run in self.queue.pending]
        with engines.make(self.config, configs, self._at_once()) as engine, header.Data(wanted):
            if len(self.entries) > 1:
                header.pace(engine, wanted, self._total() - self.progress.done)
            self.progress.begin()
            while self.waiting:
                self.queue.submit(engine)
                self.progress.under_way(len(self.queue.flying), self._total())
                if not self.queue.flying and not self.queue.pending and self.waiting:
                    self._say_once(f"waiting for {len(self.queue.elsewhere)} runs that other processes compute")
                    time.sleep(LOOK_AGAIN)
                self.queue.collect(engine)
                if len(self.refused) > 1:
                    return

    def _done(self, run: Run) -> None:
        """A run of the queue has ended: its line, and the jobs that waited for it go on."""
        if self._only_refused(run):
            self.refused.append(run)
        else:
            for held in [*self.refused, run]:
                self._say(held)
            self.refused.clear()
        for number in [number for number, runs in self.waiting.items() if run in runs]:
            self._advance(number)

    def _only_refused(self, run: Run) -> bool:
        """True if a run was refused, and every other that has ended, for the same reason. Their lines wait: where that
        is so of two, or of all, the settings are at fault, which is one line."""
        ended = [other.outcome for other in self.runs.values() if other.outcome]
        return all(outcome == run.outcome and outcome.status is Status.REFUSED for outcome in ended)

    def _say(self, run: Run) -> None:
        assert run.outcome
        status, name = run.outcome.status, self.entries[run.number].name
        role = "" if run.wanted.role == "study" else run.wanted.role
        if status in DONE:
            stored = "(stored)" if status is Status.STORED else ""
            text = " ".join(filter(None, (role, self._line(run), stored)))
            self.progress.ended(text, computed=status is Status.COMPUTED)
        else:
            line = ": ".join(filter(None, (" ".join(filter(None, (role, name))), _reason(run))))
            tried = role and status is Status.DIVERGED  # a rate of a grid that is too high is no failure
            self.progress.ended(line, computed=True, failed=not tried)

    def _line(self, run: Run) -> str:
        return summary(run.wanted, self.store.metrics(run.wanted.run_id))

    def _say_once(self, line: str) -> None:
        if line not in self.said:
            self.said.add(line)
            report(line)

    def _at_once(self) -> int:
        """How many runs could be computed at once, if there were the room: as many as jobs, or as a first tuning tries.

        Of the grid alone, not of what is stored, since the threads of a run depend on it."""
        tunings = [entry.config.tuning for entry in self.entries if entry.config.training.lr == "tuned"]
        tuned = [len(tuning.lr_grid) * len(tuning.get("seeds") or [0]) for tuning in tunings]
        return max([len(self.entries), *tuned])

    def _total(self) -> int:
        """Runs in all, as far as is known: those asked for, and one for each job that has not asked for its own yet."""
        coming = sum(self.role[number] != self.entries[number].role for number in self.waiting)
        return len(self.runs) + coming + self.without


def _reason(run: Run) -> str:
    return run.outcome.message if run.outcome else ""
