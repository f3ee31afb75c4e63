"""How many made-up cases the tests named fuzz try, and from which seed: a few hundred, or as `make fuzz` says.

FUZZ_N   cases of each test (default 200)
FUZZ_SEED  the seed of the first (default 0); a failure names the seed of its own
"""

import os
from collections.abc import Callable, Iterator
from random import Random

CASES, SEED = int(os.environ.get("FUZZ_N", "200")), int(os.environ.get("FUZZ_SEED", "0"))


def cases(share: float = 1.0) -> Iterator[tuple[int, Random]]:
    """(seed, its random numbers) of each case; share: of the number of cases, for tests whose cases take long."""
    for seed in range(SEED, SEED + max(1, round(CASES * share))):
        yield seed, Random(seed)


def outcomes(attempt: Callable[[Random], str], share: float = 1.0) -> dict[str, int]:
    """How often each outcome was that `attempt` returns. Raises AssertionError, with its seed, for the first case that
    ends in any error: `attempt` returns what the one line says where one is due."""
    counted: dict[str, int] = {}
    for seed, random in cases(share):
        try:
            outcome = attempt(random)
        except Exception as error:
            raise AssertionError(f"FUZZ_SEED={seed} FUZZ_N=1: {type(error).__name__}: {error}") from error
        counted[outcome] = counted.get(outcome, 0) + 1
    return counted


def one_line(message: str) -> str:
    """The message; raises AssertionError if it is no single line of printable characters that says something."""
    assert message.isprintable() and len(message) > 10, f"not one line: {message!r}"
    return message
