"""How `training.lr: tuned` finds a rate: a grid, and while the best lies at its edge a little beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence

from lora.config import InputError

Search = Generator[list[float], Mapping[float, float], float]


def search(grid: Sequence[float], extend: int, say: Callable[[str], None]) -> Search:
    """The learning rate with the best score: yields rates to be tried at once, is sent the scores of those that train.

    Tried are those of `grid` and, while the best lies at an edge, up to `extend` more beyond it. Of equals it is the
    one nearest to the grid's middle. `say` is told what a reader of the choice would ask.

    Raises InputError if no learning rate trains.
    """
    grid = sorted(grid)
    middle = grid[len(grid) // 2]
    scores: dict[float, float] = {}

    def rank(lr: float) -> tuple[float, float]:
        return scores[lr], -abs(math.log(lr / middle))

    waiting, tried = list(grid), list[float]()
    while waiting:
        scores |= yield waiting
        tried = sorted([*tried, *waiting])
        waiting = []
        if scores and len(tried) < len(grid) + extend:
            waiting = _beyond(tried, max(scores, key=rank), say)
    if not scores:
        raise InputError(f"no learning rate of tuning.lr_grid = {grid} trains: give smaller ones")
    best = max(scores, key=rank)
    equals = [f"{lr:g}" for lr in sorted(scores) if scores[lr] == scores[best] and lr != best]
    if equals:
        say(
            f"lr={best:g} is taken: {', '.join(equals)} {'is' if len(equals) == 1 else 'are'} as good on validation "
            f"data, and it is the nearest to the grid's middle, {middle:g}"
        )
    return best


def _beyond(tried: list[float], best: float, say: Callable[[str], None]) -> list[float]:
    """The next learning rate outside those tried, if the best is an edge of them; a grid 1, 3, 10 goes on with 30."""
    if len(tried) < 3 or best not in (tried[0], tried[-1]):
        return []
    third, second, edge = tried[-3:] if best == tried[-1] else tried[2::-1]
    following = float(f"{second * edge / third:.3g}")
    say(f"lr={best:g} is the best and the last of those tried: {following:g} is tried too")
    return [following]
