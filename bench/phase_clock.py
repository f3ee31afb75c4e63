"""What `bench.phases` times: runs one after the other in one process, as in a worker of a sweep.

python -m bench.phase_clock CONFIGS    JSON: a list of resolved configs; prints {phase: seconds}, a line a run
"""

from __future__ import annotations

import contextlib
import functools
import json
import pkgutil
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from experiments.config import RunConfig
from experiments.engines import Status
from experiments.worker import work
from lora.config import InputError

START, REST = "start, imports", "rest"
# The functions that are a phase of a run; {1} is the second of their arguments.
ALL = {
    "experiments.tasks.load": "data",
    "experiments.methods.apply": "adapt",
    "experiments.compute.train": "train",
    "lora.io.save": "save",
}
CLASSIFICATION = {
    "experiments.problems.classification.load_classifier": "weights",
    "experiments.problems.classification.tokenize": "tokenize",
    "experiments.problems.classification.Classification.evaluate": "evaluate {1}",
}
LANGUAGE = {
    "experiments.problems.language.load_language_model": "weights",
    "experiments.problems.language.Language._encode": "tokenize",
    "experiments.problems.language.Language.evaluate": "evaluate {1}",
    "experiments.problems.language.Language.generate": "generate",
    "experiments.metrics.text_metrics.right": "score texts",
    "experiments.metrics.text_metrics.score": "score texts",
}


class Clock:
    """Processor seconds of each phase, of this process and of those that it has waited for. A phase within another is
    not counted in that; what is in none is in REST."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.phases, self.last = [START], 0.0  # the clock of a process begins with it

    def tick(self) -> None:
        """What has passed since the last tick is of the phase that runs."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        now = time.process_time() + children.ru_utime + children.ru_stime
        self.seconds[self.phases[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What runs within it is of the phase `name`."""
        self.tick()
        self.phases.append(name)
        try:
            yield
        finally:
            self.tick()
            self.phases.pop()

    def timed(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """`function`, as a phase."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            with self.phase(phase.format(*args)):
                return function(*args, **options)

        return call


def measure(runs: Sequence[RunConfig]) -> Iterator[dict[str, float]]:
    """Compute runs of one task: of each {phase: seconds}. Raises InputError if one is not computed."""
    clock = Clock()
    with contextlib.ExitStack() as timed:
        for place, phase in (ALL | (LANGUAGE if "generation" in runs[0].task else CLASSIFICATION)).items():
            timed.enter_context(mock.patch(place, clock.timed(pkgutil.resolve_name(place), phase)))
        for run in runs:
            with clock.phase(REST):
                outcome = work(run)
            if outcome.status is not Status.COMPUTED:
                raise InputError(outcome.message)
            yield dict(clock.seconds)
            clock.seconds.clear()


def main(arguments: Sequence[str]) -> int:
    """Print the phases of runs. Returns 0, or 2 with one line on stderr."""
    try:
        for seconds in measure([RunConfig.of(given) for given in json.loads(arguments[0])]):
            print(json.dumps(seconds), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
