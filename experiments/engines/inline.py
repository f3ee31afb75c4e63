"""The engine of `engine.jobs=1`: runs are computed in this process, one after the other."""

from __future__ import annotations

from experiments.config import RunConfig
from experiments.engines import Engine, Outcome
from experiments.worker import work


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
