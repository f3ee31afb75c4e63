"""What the user gave and cannot work."""

from __future__ import annotations

import sys


class InputError(ValueError):
    """Something the user gave cannot work. The message is one line: what is wrong, where, what to do.

    Names of files and labels may hold anything: line breaks and other characters that cannot be printed are escaped.
    """

    def __str__(self) -> str:
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in super().__str__())


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
