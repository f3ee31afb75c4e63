"""Regular expressions that a file brings along, matched as Python's re does it, in bounded time and memory.

An expression without groups, alternatives or repeats is matched here: it ends. Any other can take forever, or all
memory to compile, so that it is matched in a process of its own, which is ended after `SECONDS`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from lora.config import InputError

SECONDS = 20
LONGEST = 10_000  # characters of one expression
PREFIX, ENDING = r"(.*\.)?(", ")$"  # what peft puts around each
_OPEN = re.compile(r"[*+?{|(]")  # what can make matching long
_CHILD = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, ValueError, OSError):
    pass  # a system without such limits has the time limit alone
patterns, names, whole = json.load(sys.stdin)
try:
    compiled = [re.compile(pattern) for pattern in patterns]
    tests = [one.fullmatch if whole else one.match for one in compiled]
    first = [next((i for i, test in enumerate(tests) if test(name)), None) for name in names]
except (re.error, RecursionError, OverflowError, MemoryError) as error:
    json.dump({"error": str(error) or type(error).__name__}, sys.stdout)
else:
    json.dump({"first": first}, sys.stdout)
"""


def first_match(patterns: Sequence[str], names: Sequence[str], where: str, whole: bool = False) -> list[int | None]:
    """For each name the index of the first pattern that `re.match` finds at its start (`whole`: that `re.fullmatch`
    finds it to be), or None.

    Raises InputError, beginning with `where`, if an expression is none, too long, or does not end in time.
    """
    for pattern in patterns:
        if len(pattern) > LONGEST:
            raise InputError(f"{where}: a regular expression of {len(pattern):,} characters is too long")
    if not patterns or not names:
        return [None] * len(names)
    if not all(_simple(pattern) for pattern in patterns):
        return _elsewhere(patterns, names, where, whole)
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise InputError(f"{where}: {error}") from error
    tests = [one.fullmatch if whole else one.match for one in compiled]
    return [next((i for i, test in enumerate(tests) if test(name)), None) for name in names]


def _simple(pattern: str) -> bool:
    """Whether an expression, but for what peft puts around it, has nothing that repeats or branches."""
    return not _OPEN.search(pattern.removeprefix(PREFIX).removesuffix(ENDING).replace(r"\(", ""))


def peft_patterns(patterns: Sequence[str]) -> list[str]:
    """Keys of rank_pattern and the like as peft matches them (`peft.utils.other.get_pattern_key`)."""
    return [f"{PREFIX}{pattern}{ENDING}" for pattern in patterns]


def _elsewhere(patterns: Sequence[str], names: Sequence[str], where: str, whole: bool) -> list[int | None]:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=json.dumps([list(patterns), list(names), whole]),
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{where}: matching its regular expressions does not end within {SECONDS} s") from error
    try:
        answer = json.loads(done.stdout)
        first: list[int | None] = answer["first"]
    except (ValueError, KeyError) as error:
        reason = answer["error"] if done.stdout.startswith('{"error"') else "its regular expressions cannot be matched"
        raise InputError(f"{where}: {reason}") from error
    return first
