"""Regular expressions that a file brings along, matched as Python's re does it, in bounded time and memory.

An expression without groups, alternatives or repeats is matched here: it ends. Any other can take forever, or all
memory to compile, so that it is matched in a process of its own, which is ended after `SECONDS`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from lora.errors import InputError

SECONDS = 20
LONGEST = 10_000  # characters of one expression
PREFIX, ENDING = r"(.*\.)?(", ")$"  # what peft puts around each
_TEXT = re.compile(r"\^?(?:[A-Za-z0-9_]|\\[.\-])+")  # a name with its dots escaped
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
    texts = {pattern: _text(pattern) for pattern in patterns}
    rest = [index for index, pattern in enumerate(patterns) if whole or texts[pattern] is None]
    found = _expressions([patterns[index] for index in rest], names, where, whole)
    first = [None if own is None else rest[own] for own in found]
    if len(rest) < len(patterns):
        ends: dict[str, int] = {}
        for index, pattern in enumerate(patterns):
            if (text := texts[pattern]) is not None:
                ends.setdefault(text, index)
        first = [_earlier(own, ends, name) for own, name in zip(first, names, strict=True)]
    return first


def _text(pattern: str) -> str | None:
    """What a key of peft's stands for if it is no more than a text: the end of a name, or (with `^`) all of it."""
    body = pattern.removeprefix(PREFIX).removesuffix(ENDING)
    if not _TEXT.fullmatch(body) or pattern != f"{PREFIX}{body}{ENDING}":
        return None
    return body.replace("\\", "")


def _earlier(found: int | None, ends: Mapping[str, int], name: str) -> int | None:
    """The lower of `found` and the indices of the texts that are the name or, from a dot on, its end."""
    parts = name.split(".")
    tails = [f"^{name}", *(".".join(parts[start:]) for start in range(len(parts)))]
    return min((index for index in (found, *map(ends.get, tails)) if index is not None), default=None)


def _expressions(patterns: Sequence[str], names: Sequence[str], where: str, whole: bool) -> list[int | None]:
    if not patterns:
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
