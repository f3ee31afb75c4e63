"""What a test split of so many rows can tell apart."""

from __future__ import annotations

import math

FEW = 0.05  # a standard error above which a test split is worth a warning: fewer than 100 rows


def standard_error(rows: int) -> float:
    """The standard error of a share of `rows` rows, such as an accuracy, as an estimate for other rows: the largest
    there is, which is that of one half. In [0, 0.5]."""
    return 0.5 / math.sqrt(rows)


def warning(rows: int, task: str = "") -> str | None:
    """One line where a test split of `rows` rows is too small to tell runs apart, and None where it is not."""
    if rows < 1 or standard_error(rows) <= FEW:
        return None
    error = standard_error(rows)
    apart = 1.96 * math.sqrt(2) * error  # of two runs that err on different rows
    size = f"{task} has {rows} test rows" if task else f"{rows} test rows"
    return (
        f"warning: {size}: a score has a standard error of up to {100 * error:.1f} points, so that runs less than "
        f"{100 * apart:.0f} points apart may come in another order on other rows; give more by task.test_path or "
        "task.test_examples, or a larger file"
    )
