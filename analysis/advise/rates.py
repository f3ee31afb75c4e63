"""The learning rate at the largest rank, by successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): short
runs of all rates, longer ones of the best half. Validation data choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from analysis.advise.subject import SEEDS, Ranks, Subject
from experiments import tuning
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
    """A rate in a stage: the share of the examples, the mean validation loss over the seeds (None: it diverged), and
    whether a run has collapsed."""

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
    """The rate of `grid` with the lowest validation loss at these ranks; of equals the one nearest to the middle. One
    of which a run has collapsed comes after all others. Raises InputError if every rate of a stage diverges."""
    rates, tried, left = list(grid), list[Tried](), list[Tried]()
    for stage in stages:
        rates = rates[: stage.rates]
        found = [_tried(subject, lr, stage, runs) for lr, runs in _trained(subject, ranks, rates, stage, examples)]
        tried += found
        left = sorted((one for one in found if one.loss is not None), key=lambda one: (one.collapsed, one.loss))
        if not left:
            named = ", ".join(f"{lr:g}" for lr in rates)
            raise InputError(f"every learning rate diverged ({named}): give lower ones, as --rates {min(rates) / 10:g}")
        rates = [one.lr for one in left]
        report(f"  {stage.share:.0%} of the examples: " + ", ".join(f"lr={one.lr:g} {one.loss:.4f}" for one in left))
    scores = {one.lr: -one.loss for one in left if one.loss is not None and one.collapsed == left[0].collapsed}
    best = tuning.best_rate(scores, sorted(grid)[len(grid) // 2])
    warnings = [f"lr = {one.lr:g} diverged" for one in tried if one.loss is None]
    if left[0].collapsed:
        warnings.append("a run predicts about one class at every rate: little was learnt, and little can be advised")
    if best in (min(grid), max(grid)):
        side, beyond = ("lowest", best / 3) if best == min(grid) else ("highest", best * 3)
        warnings.append(f"the best rate, {best:g}, is the {side} that was tried: try {beyond:.1g} too (--rates)")
    return Chosen(best, tried, warnings)


def _trained(
    subject: Subject, ranks: Ranks, rates: Sequence[float], stage: Stage, examples: int
) -> list[tuple[float, list[str]]]:
    """The runs of each rate in a stage. Those on all examples keep their weights: the best of them are the largest
    adapter's."""
    whole = stage.share == 1
    count = None if whole else max(1, math.ceil(stage.share * examples))
    pairs = [(lr, seed) for lr in rates for seed in SEEDS[: stage.seeds]]
    configs = {f"lr={lr:g} seed={seed}": subject.config(ranks, lr, seed, count, keep=whole) for lr, seed in pairs}
    ids = subject.sweep(configs, "tuning")
    return [(lr, [runs[-1] for (own, _), runs in zip(pairs, ids, strict=True) if own == lr]) for lr in rates]


def _tried(subject: Subject, lr: float, stage: Stage, runs: Sequence[str]) -> Tried:
    if not all(runs):
        return Tried(lr, stage.share, None)
    collapsed = any(bool(subject.store.metrics(run).get("collapsed")) for run in runs)
    loss = fmean(-subject.store.validation_score(run, by_loss=True) for run in runs)
    return Tried(lr, stage.share, loss, collapsed)
