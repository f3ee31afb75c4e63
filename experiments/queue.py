"""The runs of a sweep that are to be computed: in a queue, under way on an engine, or with another process."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from experiments.engines import Engine, Outcome, Status
from experiments.jobs import Wanted
from experiments.progress import report
from experiments.store import DivergedError, Store

LOOK_AGAIN = 2.0  # seconds until a run that another process computes is looked at again


class Run:
    """A run that jobs wait for. Tuning comes first, then runs in the order of the jobs."""

    def __init__(self, wanted: Wanted, number: int) -> None:
        self.wanted, self.number, self.lost = wanted, number, False
        self.outcome: Outcome | None = None

    def __lt__(self, other: Run) -> bool:
        return (self.wanted.role == "study", self.number) < (other.wanted.role == "study", other.number)


class Queue:
    """Runs on their way to an outcome; `done` is told of each that has one, whoever computed it."""

    def __init__(self, store: Store, done: Callable[[Run], None]) -> None:
        self.store, self.done = store, done
        self.pending: list[Run] = []  # a heap
        self.elsewhere: list[Run] = []  # other processes compute them
        self.flying: dict[int, Run] = {}
        self.tickets = itertools.count()

    def known(self, run: Run) -> Outcome | None:
        """How a run ended before, here or elsewhere."""
        if self.store.holds(run.wanted.run_id, run.wanted.config.runtime.keep_weights == "all"):
            return Outcome(Status.STORED)
        try:
            self.store.raise_if_diverged(run.wanted.run_id)
        except DivergedError as error:
            return Outcome(Status.DIVERGED, str(error))
        return None

    def add(self, run: Run) -> None:
        """One more to be computed."""
        heapq.heappush(self.pending, run)

    def submit(self, engine: Engine) -> None:
        """Begin the runs that nobody has and nobody computes, as many as the engine takes."""
        while self.pending and len(self.flying) < engine.slots:
            run = heapq.heappop(self.pending)
            if self._looked_up(run):
                ticket = next(self.tickets)
                self.flying[ticket] = run
                engine.submit(ticket, engine.prepared(run.wanted.config))

    def collect(self, engine: Engine) -> None:
        """Wait for the first of those under way to end, and look again at those of other processes."""
        for ticket, outcome in engine.finished(LOOK_AGAIN) if self.flying else ():
            self._ended(self.flying.pop(ticket), outcome)
        left, self.elsewhere = self.elsewhere, []
        for run in left:
            if self._looked_up(run):
                self.add(run)

    def _looked_up(self, run: Run) -> bool:
        """True if a run is nobody's; else it has ended, which is told, or is another process's."""
        run.outcome = self.known(run)
        if run.outcome:
            self.done(run)
        elif self.store.claimed(run.wanted.run_id):
            self.elsewhere.append(run)
        else:
            return True
        return False

    def _ended(self, run: Run, outcome: Outcome) -> None:
        if outcome.status is Status.BUSY:
            self.elsewhere.append(run)
        elif outcome.status is Status.LOST and not run.lost:
            run.lost = True
            report(f"run {run.wanted.run_id} was lost: {outcome.message}; it is begun once more")
            self.add(run)
        else:
            twice = outcome.status is Status.LOST
            run.outcome = outcome._replace(message=f"lost twice: {outcome.message}") if twice else outcome
            self.done(run)
