"""The learning rate at the largest rank, by successive halving: short runs of all rates, longer ones of the best.

Chosen on validation data alone (Jamieson and Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from analysis.advise.subject import SEEDS, Ranks, Subject
from experiments import choice
from experiments.progress import report
from lora.errors import InputError

GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


class Stage(NamedTuple):
    """So many rates, trained on a share of the examples, with so many seeds."""

    rates: int
    share: float
    seeds: int

    @property
    def runs(self) -> int:
        """How many runs that is."""
        return self.rates * self.seeds


class Tried(NamedTuple):
    """A rate in a stage: the share of the examples, and the mean validation loss over the stage's seeds (None: it
    diverged), and whether a run of it has collapsed."""

    lr: float
    share: float
    loss: float | None
    collapsed: bool = False


class Chosen(NamedTuple):
    """The rate, all that was tried, and what a reader must know."""

    lr: float
    tried: list[Tried]
    warnings: list[str]


def search(subject: Subject, ranks: Ranks, grid: Sequence[float], stages: Sequence[Stage], examples: int) -> Chosen:
    """The best of `grid` by validation loss, at these ranks. Raises InputError if every rate diverges."""
    rates, tried, warnings = list(grid), list[Tried](), list[str]()
    for stage in stages:
        rates = rates[: stage.rates]
        found = _stage(subject, ranks, rates, stage, examples)
        tried += found
        warnings += [f"lr = {one.lr:g} diverged" for one in found if one.loss is None]
        left = sorted((one for one in found if one.loss is not None), key=_badness)
        if not left:
            lower = (
                "none lower was left" if len(tried) > len(found) else f"all of {', '.join(f'{lr:g}' for lr in grid)}"
            )
            raise InputError(f"no learning rate trains ({lower}): each diverged; give lower ones by --rates")
        rates = [one.lr for one in left]
        report(f"  {stage.share:g} of the examples: " + ", ".join(f"lr={one.lr:g} {one.loss:.4f}" for one in left))
    scores = {one.lr: -one.loss for one in left if one.loss is not None and one.collapsed == left[0].collapsed}
    best = choice.best_rate(scores, sorted(grid)[len(grid) // 2])
    if left[0].collapsed:
        warnings.append("every rate of the last stage has a run that predicts about one class: nothing was learnt")
    if best in (min(grid), max(grid)):
        side, beyond = ("lowest", best / 3) if best == min(grid) else ("highest", best * 3)
        warnings.append(f"the best rate, {best:g}, is the {side} that was tried: try also {beyond:.1g} (--rates)")
    return Chosen(best, tried, list(dict.fromkeys(warnings)))


def _badness(one: Tried) -> tuple[bool, float]:
    return one.collapsed, math.inf if one.loss is None else one.loss


def _stage(subject: Subject, ranks: Ranks, rates: Sequence[float], stage: Stage, examples: int) -> list[Tried]:
    whole = stage.share == 1
    count = None if whole else max(1, math.ceil(stage.share * examples))
    pairs = [(lr, seed) for lr in rates for seed in SEEDS[: stage.seeds]]
    ids = subject.train(
        {f"lr={lr:g} seed={seed}": subject.config(ranks, lr, seed, count, keep=whole) for lr, seed in pairs}
    )
    found = []
    for number, lr in enumerate(rates):
        runs = ids[number * stage.seeds : (number + 1) * stage.seeds]
        trained = [run for run in runs if run is not None]
        if len(trained) < len(runs):
            found.append(Tried(lr, stage.share, None))
            continue
        metrics = [subject.store.metrics(run) for run in trained]
        loss = fmean(-subject.store.validation_score(run, by_loss=True) for run in trained)
        found.append(Tried(lr, stage.share, loss, any(bool(one.get("collapsed")) for one in metrics)))
    return found
