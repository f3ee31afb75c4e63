"""How `training.lr: tuned` finds a rate: a grid, and while the best lies at its edge a little beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

from lora.config import InputError


class Tried(NamedTuple):
    """What the runs at one rate came to: their mean score, higher is better, and the worst of them: 0 has learnt, 1 is
    no better than the floor, a head alone, 2 has collapsed."""

    score: float
    worst: int = 0


Search = Generator[list[float], Mapping[float, Tried], float]
OUT = ("", "is no better than a head alone", "collapsed")


def search(grid: Sequence[float], extend: int, say: Callable[[str], None]) -> Search:
    """The learning rate with the best score: yields rates to be tried at once, is sent what those that train came to.

    Tried are those of `grid` and, while the best lies at an edge, up to `extend` more beyond it. Of equals it is the
    one nearest to the grid's middle. A rate is out if one of its runs has collapsed, or is no better than the floor.
    Where that leaves none, those at the floor are in again, since a method may do no better on a task; where all have
    collapsed it is the lowest. `say` is told what a reader of the choice would ask.

    Raises InputError if no learning rate trains.
    """
    grid = sorted(grid)
    middle = grid[len(grid) // 2]
    found: dict[float, Tried] = {}
    waiting, tried = list(grid), list[float]()
    while waiting:
        found |= yield waiting
        tried = sorted([*tried, *waiting])
        waiting = []
        if found and len(tried) < len(grid) + extend and min(one.worst for one in found.values()) < 2:
            waiting = _beyond(tried, best_rate(_sound(found), middle), say)
    if not found:
        raise InputError(f"no learning rate of tuning.lr_grid = {grid} trains: give smaller ones")
    scores, rest = _sound(found), {lr: one for lr, one in found.items() if one.worst}
    least = min(one.worst for one in found.values())
    if least:
        lowest = least == 2
        what = f"the lowest, lr={min(found):g}, is taken" if lowest else "the best of them is taken all the same"
        say(f"a run {OUT[least]} at every rate of {len(found)}: {what}")
        if lowest:
            return min(found)
    else:
        for lr, one in sorted(rest.items()):
            say(f"lr={lr:g} is out: a run {OUT[one.worst]}")
    best = best_rate(scores, middle)
    say(reason(scores, best))
    return best


def _sound(found: Mapping[float, Tried]) -> dict[float, float]:
    """The scores of the rates whose worst run is best."""
    least = min(one.worst for one in found.values())
    return {lr: one.score for lr, one in found.items() if one.worst == least}


def _beyond(tried: list[float], best: float, say: Callable[[str], None]) -> list[float]:
    """The next learning rate outside those tried, if the best is an edge of them; a grid 1, 3, 10 goes on with 30."""
    if len(tried) < 3 or best not in (tried[0], tried[-1]):
        return []
    third, second, edge = tried[-3:] if best == tried[-1] else tried[2::-1]
    following = float(f"{second * edge / third:.3g}")
    say(f"lr={best:g} is the best and the last of those tried: {following:g} is tried too")
    return [following]


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
