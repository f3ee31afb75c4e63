"""When a run has collapsed: it predicts about the commonest class, whatever the text is.

A mean over seeds of which some have collapsed says nothing of the others: such runs are counted as a rate of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

MARGIN = 0.02  # of accuracy
SHARE = 0.1  # of what the commonest class leaves, where that is less: of 95%, all that is above is five points


class Check(NamedTuple):
    """Of the validation split: the share of items that are right, that of the commonest class, and whether the run has
    collapsed. All None where there are no classes."""

    accuracy: float | None
    majority: float | None
    collapsed: bool | None


def majority(classes: Iterable[object]) -> float:
    """The share of the commonest of these classes, of which there is one at least."""
    counts = Counter(classes)
    return max(counts.values()) / counts.total()


def above(accuracy: float, floor: float) -> bool:
    """True if an accuracy is more than 2 points, or a tenth of what is left, above that of a floor; both in [0, 1]."""
    return accuracy - floor > min(MARGIN, SHARE * (1 - floor))


def check(accuracy: float | None, majority: float | None) -> Check:
    """The check of a run with this accuracy on a split of which the commonest class is the share `majority`."""
    if accuracy is None or majority is None:
        return Check(None, None, None)
    return Check(accuracy, majority, not above(accuracy, majority))
