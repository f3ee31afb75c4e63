"""What a sweep shows while it goes: a bar on a terminal, and one line a run with what is done and the time to come."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

from tqdm.auto import tqdm


def report(line: str) -> None:
    """Print a line above the bars."""
    tqdm.write(line, file=sys.stderr if line.startswith("error") else sys.stdout)
    sys.stdout.flush()  # in a pipe too a line is seen when it is written


def span(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """The runs of a sweep: done, of them failed, and under way. The parent alone has one.

    `total` may grow while learning rates are tuned. What was stored says nothing of the time to come.
    """

    def __init__(self, name: str) -> None:
        self.name, self.total, self.done, self.failed, self.computed = name, 1, 0, 0, 0
        self.started = time.monotonic()
        self.bar: tqdm[NoReturn] | None = None

    @property
    def begun(self) -> bool:
        """True when runs have been told of."""
        return self.bar is not None

    def begin(self) -> None:
        """The first run is about to be computed: time counts from here."""
        self.started = time.monotonic()

    def skip(self, runs: int, line: str) -> None:
        """So many runs were stored, in one line."""
        self._open().update(runs)
        self.done += runs
        report(line)

    def under_way(self, running: int, total: int) -> None:
        """So many runs are being computed now; so many there are in all, as far as is known."""
        self.total = total
        parts = [f"{running} running"] + ([f"{self.failed} failed"] if self.failed else [])
        bar = self._open()
        bar.total = total
        bar.set_postfix_str(", ".join([*parts, f"ETA {span(self._remaining())}"] if self.computed else parts))

    def _open(self) -> tqdm[NoReturn]:
        if self.bar is None:
            shape = "{desc} {bar} {n_fmt}/{total_fmt} runs{postfix}"
            self.bar = tqdm(total=self.total, desc=self.name, disable=None, bar_format=shape, dynamic_ncols=True)
        return self.bar

    def ended(self, line: str, computed: bool = False, failed: bool = False) -> None:
        """One run more is done: its line, with its place and the time to come."""
        self.done += 1
        self.computed += computed
        self.failed += failed
        place = f"[{self.done}/{self.total}] " if self.total > 1 else ""
        eta = f"; ETA {span(self._remaining())}" if computed and self.done < self.total else ""
        error = "error: " if failed else ""
        report(f"{error}{place}{line}{eta}")
        self._open().update()

    def _remaining(self) -> float:
        each = (time.monotonic() - self.started) / max(self.computed, 1)
        return each * (self.total - self.done)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
