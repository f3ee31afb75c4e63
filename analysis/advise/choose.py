"""From looks to a recommendation: the cheapest adapter that is, by a one-sided 95% bound, within a margin of r_max."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from analysis.adapters import ranks
from analysis.adapters.ranks import Spectrum, Wish
from analysis.advise.looks import CANDIDATES, Looked, Looks, Pick, blocks, depth, few, parts, uniform, whole
from analysis.advise.subject import Subject
from analysis.maths import estimates
from analysis.maths.estimates import LEVEL, Estimate
from lora.errors import InputError

POINT = 0.01
NATS = 0.02  # that count as much as a point where text is written: 2% of the perplexity
SHARES = (0.75, 0.5, 0.35, 0.25)  # of the smallest uniform adapter's parameters, which patterns of ranks are given


class Margin(NamedTuple):
    """How far below r_max is good enough: points of the score, or a share of what r_max gains over the floor."""

    points: float = 0.0
    share: float = 0.0

    @classmethod
    def of(cls, text: str) -> Margin:
        """Of `0.5`, points, or `5%` of the gain. Raises InputError for what is neither."""
        share = text.strip().endswith("%")
        try:
            value = float(text.strip().removesuffix("%"))
        except ValueError:
            value = math.nan
        if not 0 < value < 100:
            raise InputError(f"MARGIN={text}: give points, as 0.5, or a share of the gain over the head alone, as 5%")
        return cls(share=value / 100) if share else cls(points=value)

    def score(self, loss: bool, gain: float) -> float:
        """As a difference of scores. Raises InputError for a share of a gain that is none."""
        if not self.share:
            return self.points * (NATS if loss else POINT)
        if gain <= 0:
            raise InputError("the largest adapter is no better than the head alone: give MARGIN in points")
        return self.share * gain


class Judged(NamedTuple):
    """A pick: its parameters, its score, how far it is above r_max (with the error of seeds and items), and the lower
    end of the one-sided 95% interval of that."""

    pick: Pick
    parameters: int
    score: Estimate
    above: Estimate
    bound: float


class Worth(NamedTuple):
    """A unit of the largest adapter: parameters of one rank of it, what it is alone at some ranks, and all the others
    without it."""

    unit: str
    parameters: int
    alone: list[Judged]
    without: Judged


class Recommended(NamedTuple):
    """best: what is recommended; plain: the best that has one rank; margin: as a difference of scores. What it follows
    from: the whole update at rising ranks, units, blocks of layers left out, smaller adapters."""

    best: Judged
    plain: Judged
    margin: float
    curve: list[Judged]
    worth: list[Worth]
    layers: list[Judged]
    candidates: list[Judged]

    @property
    def largest(self) -> Judged:
        """r_max on all units."""
        return self.curve[-1]

    def holds(self, one: Judged) -> bool:
        """Whether a pick's bound is within the margin."""
        return one.bound >= -self.margin


def estimate(found: Looked) -> Estimate:
    """The mean over seeds, with the error of seeds and items (`estimates.two_way`); of items alone where seeds do not
    differ, and none where nothing does."""
    mean = estimates.mean(found.scores) if found.items is None else estimates.two_way(found.items)
    if not mean.error > 0 and found.items is not None:
        mean = estimates.mean(found.items.mean(axis=0))._replace(n=len(found.items))
    return mean._replace(value=float(found.scores.mean()))


def bound(above: Estimate) -> float:
    """The lower end of the one-sided 95% interval; the value itself where nothing scatters."""
    return above.value - (float(above.error * stdtrit(above.freedom, 1 - LEVEL)) if above.error > 0 else 0.0)


def recommend(subject: Subject, looks: Looks, margin: Margin, floor: float | None, heal: bool) -> Recommended:
    """Looks at the whole update at rising ranks and at its parts, then at smaller adapters that these suggest.

    floor: the score of the head alone, None: that of no update. heal: looks also at ranks below the smallest that is
    within the margin, trained on for a tenth of the steps.
    """
    units, r_max, layers = subject.units, looks.r_max, depth(subject.body)
    n = len(units)
    seen = looks.take([*(uniform(n, k) for k in whole(r_max)), *parts(units, r_max, layers)])
    reference = seen[uniform(n, r_max)]

    def judged(pick: Pick) -> Judged:
        above = estimate(seen[pick].minus(reference))
        return Judged(pick, _parameters(subject, pick), estimate(seen[pick]), above, bound(above))

    curve = [judged(uniform(n, k)) for k in whole(r_max)]
    gain = curve[-1].score.value - (curve[0].score.value if floor is None else floor)
    within = margin.score(looks.metric == "loss", gain)
    worth = [
        Worth(
            unit,
            subject.parameters({unit: 1}),
            [judged(uniform(n, k, only=place)) for k in few(r_max)],
            judged(uniform(n, r_max, but=place)),
        )
        for place, unit in enumerate(units)
    ]
    smallest = next(one for one in curve if any(one.pick.ranks) and one.bound >= -within)
    tried = _candidates(subject, looks, smallest, worth)
    if heal:
        tried += [one.pick._replace(healed=True) for one in curve if 0 < one.parameters < smallest.parameters]
    seen |= looks.take(tried)
    candidates = [judged(pick) for pick in tried]
    holding = [smallest, *(one for one in candidates if one.bound >= -within)]
    plain = [one for one in holding if len(set(one.pick.ranks) - {0}) == 1]
    best, one_rank = (min(kind, key=lambda one: (one.parameters, -one.bound)) for kind in (holding, plain))
    dropped = [judged(Pick((r_max,) * n, block)) for block in blocks(layers)]
    return Recommended(best, one_rank, within, curve, worth, dropped, candidates)


def _parameters(subject: Subject, pick: Pick) -> int:
    return subject.parameters(dict(zip(subject.units, pick.ranks, strict=True)))


def _candidates(subject: Subject, looks: Looks, smallest: Judged, worth: Sequence[Worth]) -> list[Pick]:
    """Adapters cheaper than `smallest`: on fewer units, without those that are missed least for their parameters, at
    its rank and at two and four times that; and a rank for each unit, the most energy that so many parameters hold."""
    n, k = len(worth), max(smallest.pick.ranks)
    missed = sorted(range(n), key=lambda unit: worth[unit].without.above.value / worth[unit].parameters)
    found = [
        Pick(tuple(rank if unit in missed[:kept] else 0 for unit in range(n)))
        for rank in (k, 2 * k, 4 * k)
        for kept in range(1, n)
        if rank <= looks.r_max
    ]
    spectra = [
        Spectrum(np.sqrt(energy), (own.parameters, 0), float(energy.sum()))
        for energy, own in zip(looks.spectra, worth, strict=True)
    ]
    budgets = [int(share * smallest.parameters) for share in SHARES]
    found += [
        Pick(tuple(ranks.choose(spectra, Wish(params=params))))
        for params in budgets
        if params >= min(own.cost for own in spectra)
    ]
    size = {pick: _parameters(subject, pick) for pick in found}
    cheaper = [pick for pick in size if size[pick] < smallest.parameters]
    return sorted(cheaper, key=lambda pick: -size[pick])[:CANDIDATES]
