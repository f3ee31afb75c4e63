"""The engine of one machine: worker processes, each with its runs one after the other, and its GPU if there is one; or,
with `engine.jobs=1`, this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm.auto import tqdm

from experiments.config import RunConfig
from experiments.engines import Engine, Outcome, Status, sizing
from experiments.worker import work

CONTEXT = sizing.CONTEXT


class Inline(Engine):
    """Computes a run while it is submitted. An interruption reaches it as any other code of the parent."""

    slots = 1

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.ended: list[tuple[int, Outcome]] = []

    def submit(self, ticket: int, config: RunConfig) -> None:  # noqa: D102
        self.ended.append((ticket, work(config)))

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:  # noqa: D102
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:  # noqa: D102
        self.ended.clear()


class Local(Engine):
    """`workers` processes. One that dies takes its run with it, no other; the next run starts another.

    threads: of each; gpus: the devices of CUDA_VISIBLE_DEVICES that they share out, none: no GPU, or as it is set.
    """

    def __init__(self, workers: int, threads: int, gpus: list[str]) -> None:
        self.slots, self.threads, self.each, self.gpus = workers, threads, threads, gpus
        self.workers: list[_Worker | None] = [None] * workers

    def submit(self, ticket: int, config: RunConfig) -> None:  # noqa: D102
        place = next(place for place, worker in enumerate(self.workers) if worker is None or worker.ticket is None)
        worker = self.workers[place]
        if worker is None:
            gpu = self.gpus[place % len(self.gpus)] if self.gpus else None
            worker = self.workers[place] = _Worker(self.each, gpu)
        worker.begin(ticket, config)

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:  # noqa: D102
        busy = {worker.connection: place for place, worker in enumerate(self.workers) if worker and worker.busy}
        ended = []
        for connection in wait(list(busy), timeout=seconds):
            place = busy[connection]  # type: ignore[index]
            worker = self.workers[place]
            assert worker is not None
            ticket, outcome = worker.end()
            if outcome.status is Status.LOST:
                self.workers[place] = None
            ended.append((ticket, outcome))
        return ended

    def close(self) -> None:  # noqa: D102
        workers, self.workers = [worker for worker in self.workers if worker], [None] * self.slots
        for worker in workers:
            worker.connection.close()  # one without a run ends at that
            if worker.busy:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def make(config: Mapping[str, Any], configs: Sequence[RunConfig], grid: int) -> Engine:
    """As many workers as `engine.jobs` says or, if it is `auto`, as cores, memory and GPUs allow; one run at once is
    computed in this process, or by all processes that torchrun has started. Raises InputError as `sizing.size` and
    `processes.Together`."""
    if "RANK" in os.environ or any(run.runtime.parallel for run in configs):
        from experiments.processes import Together

        return Together(configs)
    size = sizing.size(config["engine"]["jobs"], configs, grid)
    if size.workers == 1:
        return Inline(size.threads)
    return Local(size.workers, size.threads, size.gpus)


class _Worker:
    """A process, its end of a pipe, and the ticket of the run that it computes."""

    def __init__(self, threads: int, gpu: str | None) -> None:
        self.connection, other = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(other, threads, gpu), daemon=True)
        with _apart():
            self.process.start()
        other.close()
        self.ticket: int | None = None

    @property
    def busy(self) -> bool:
        return self.ticket is not None

    def begin(self, ticket: int, config: RunConfig) -> None:
        self.ticket = ticket
        with contextlib.suppress(BrokenPipeError):  # it died between two runs: `end` says so
            self.connection.send(config)

    def end(self) -> tuple[int, Outcome]:
        assert self.ticket is not None
        ticket, self.ticket = self.ticket, None
        try:
            return ticket, self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            more = "; the system kills processes that ask for more memory than there is" if code == -9 else ""
            return ticket, Outcome(Status.LOST, f"its worker was {why}{more}")


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Start a process that does not run the parent's main module again, as spawn does: it imports its own work. Ctrl-C
    reaches all processes of a terminal; such a process is the parent's to end, and so is deaf to it from the start."""
    deaf = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if deaf else None
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        main.__spec__ = None
        if "__file__" in kept:
            del main.__file__
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
        if deaf:
            signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, threads: int, gpu: str | None) -> None:
    """What a worker process does: one run after the other, until the parent ends it, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TQDM_DISABLE"] = "1"  # the parent has the bar
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process would leave behind
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(work(connection.recv()))


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
