"""Which of the learning rates that were tried is taken, and why, in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping


def best_rate(scores: Mapping[float, float], middle: float) -> float:
    """The learning rate with the highest score; of equals the one nearest to `middle`, by ratio."""
    return max(scores, key=lambda lr: (scores[lr], -abs(math.log(lr / middle))))


def reason(scores: Mapping[float, float], best: float) -> str:
    """The line that says which rate was chosen; scores are of validation data, or minus its loss."""
    equals = [f"{lr:g}" for lr in sorted(scores) if scores[lr] == scores[best] and lr != best]
    line = f"lr={best:g} is chosen: the best validation score of {len(scores)} rates, {abs(scores[best]):.4f}"
    if not equals:
        return line
    others = f"{', '.join(equals[:-1])} and {equals[-1]}" if len(equals) > 1 else equals[0]
    return f"{line}; lr={others} scored the same, and of equals the one nearest to the middle of the grid is taken"
