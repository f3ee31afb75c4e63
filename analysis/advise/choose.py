"""From looks to a recommendation: the cheapest adapter that is, by a one-sided 95% bound, within a margin of r_max."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from analysis.adapters import ranks
from analysis.adapters.ranks import Spectrum, Wish
from analysis.advise.looks import Looked, Looks, Pick, alone, blocks, few, left_out, parts, uniform, whole
from analysis.advise.subject import Subject
from analysis.maths import judging
from analysis.maths.judging import LEVEL, Estimate
from experiments.progress import report
from lora.errors import InputError
from lora.targets import layer_of

POINT = 0.01
NATS = 0.02  # that count as much as a point where text is written: 2% of the perplexity
MARGIN = "0.5"
SHARES = (0.75, 0.5, 0.35, 0.25)  # of the uniform adapter's parameters, that a pattern of ranks is tried with


class Margin(NamedTuple):
    """How far below r_max is good enough: points of the score, or a share of what r_max gains over the floor."""

    points: float = 0.0
    share: float = 0.0

    @classmethod
    def of(cls, text: str) -> Margin:
        """Of `0.5`, points, or `5%` of the gain. Raises InputError for what is neither."""
        number = text.strip().removesuffix("%")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 < value < 100:
            raise InputError(f"MARGIN={text}: give points, as 0.5, or a share of the gain over the head alone, as 5%")
        return cls(share=value / 100) if text.strip().endswith("%") else cls(points=value)

    def score(self, writes: bool, gain: float) -> float:
        """As a difference of scores. Raises InputError for a share of a gain that is none."""
        if not self.share:
            return self.points * (NATS if writes else POINT)
        if gain <= 0:
            raise InputError("the largest adapter is no better than the head alone: give MARGIN in points")
        return self.share * gain


class Judged(NamedTuple):
    """A pick: its parameters, its score, and how far it is above that of r_max, with errors of seeds and items; bound:
    the lower end of the one-sided 95% interval of that difference."""

    pick: Pick
    parameters: int
    score: Estimate
    above: Estimate
    bound: float


class Worth(NamedTuple):
    """A unit at r_max: parameters of one rank of it, its score alone at some ranks, and what leaving it out costs."""

    unit: str
    parameters: int
    alone: list[Judged]
    cost: Judged


class Recommended(NamedTuple):
    """What is recommended, and what it follows from. curve: the whole update at rising ranks; layers: blocks left out;
    candidates: smaller ones that were looked at; plain: the best of one rank for all its types."""

    best: Judged
    plain: Judged
    largest: Judged
    margin: float
    curve: list[Judged]
    worth: list[Worth]
    layers: list[Judged]
    candidates: list[Judged]

    def holds(self, one: Judged) -> bool:
        """Whether a pick's bound is within the margin."""
        return one.bound >= -self.margin


def judged(subject: Subject, pick: Pick, found: Looked, whole: Looked) -> Judged:
    """A pick beside r_max, on the same seeds and items."""
    above = estimate(found.scores - whole.scores, _minus(found, whole))
    ranks = dict(zip(subject.units, pick.ranks, strict=True))
    return Judged(pick, subject.parameters(ranks), estimate(found.scores, found.items), above, bound(above))


def _minus(found: Looked, whole: Looked) -> np.ndarray | None:
    return None if found.items is None or whole.items is None else found.items - whole.items


def estimate(scores: np.ndarray, items: np.ndarray | None) -> Estimate:
    """The mean over seeds, with the error of seeds and items (`judging.two_way`), or of items alone where seeds do not
    differ; without error where nothing differs."""
    found = judging.mean(scores) if items is None else judging.two_way(items)
    if not found.error > 0 and items is not None:
        found = judging.mean(items.mean(axis=0))._replace(n=len(items))
    return found._replace(value=float(scores.mean()))


def bound(above: Estimate) -> float:
    """The lower end of the one-sided 95% interval; the value itself where nothing scatters."""
    return above.value - (float(above.error * stdtrit(above.freedom, 1 - LEVEL)) if above.error > 0 else 0.0)


def recommend(subject: Subject, looks: Looks, margin: Margin, floor: float | None, heal: bool) -> Recommended:
    """Looks at the whole update at rising ranks and at its parts, then at smaller adapters that these suggest.

    floor: the score of the head alone, where there is a head. heal: ranks below the smallest that holds are trained on
    for a tenth of the steps, and looked at again.
    """
    n, r_max = len(subject.units), looks.r_max
    layers = blocks(1 + max((layer_of(name) or 0 for name, _ in subject.body.named_modules()), default=0))
    first = [uniform(n, k) for k in whole(r_max)] + parts(subject.units, r_max, layers)
    seen = dict(zip(first, looks.take(first), strict=True))
    largest = seen[uniform(n, r_max)]

    def judge(pick: Pick) -> Judged:
        return judged(subject, pick, seen[pick], largest)

    curve = [judge(uniform(n, k)) for k in whole(r_max)]
    gain = float(largest.scores.mean()) - (curve[0].score.value if floor is None else floor)
    within = margin.score(subject.writes, gain)
    worth = [
        Worth(
            unit,
            subject.parameters({unit: 1}),
            [judge(alone(n, at, k)) for k in few(r_max)],
            judge(left_out(n, at, r_max)),
        )
        for at, unit in enumerate(subject.units)
    ]
    dropped = [judge(Pick((r_max,) * n, block)) for block in layers] if len(layers) > 1 else []
    smallest = next(one for one in curve if one.bound >= -within and any(one.pick.ranks))
    report(f"  the whole update within the margin: r = {max(smallest.pick.ranks)}")
    tried = _candidates(subject, looks, smallest, worth)
    if heal:
        tried += [one.pick._replace(healed=True) for one in curve if 0 < max(one.pick.ranks) < max(smallest.pick.ranks)]
    seen |= dict(zip(tried, looks.take(tried), strict=True))
    candidates = [judge(pick) for pick in tried]
    holding = [smallest, *(one for one in candidates if one.bound >= -within)]
    plain = [one for one in holding if len(set(one.pick.ranks) - {0}) == 1]
    cheapest = min(holding, key=_cost)
    return Recommended(cheapest, min(plain, key=_cost), curve[-1], within, curve, worth, dropped, candidates)


def _cost(one: Judged) -> tuple[int, float]:
    return one.parameters, -one.above.value


def _candidates(subject: Subject, looks: Looks, smallest: Judged, worth: Sequence[Worth]) -> list[Pick]:
    """Adapters cheaper than `smallest`: with fewer units, those dropped first whose loss costs least for their
    parameters, at its rank and twice and four times that; and a rank for each unit, by energy for parameters."""
    n, k = len(subject.units), max(smallest.pick.ranks)
    order = sorted(range(n), key=lambda unit: -worth[unit].cost.above.value / worth[unit].parameters)
    found = []
    for rank in (k, 2 * k, 4 * k):
        if rank > looks.r_max:
            continue
        for kept in range(n - 1, 0, -1):
            units = set(order[n - kept :])
            found.append(Pick(tuple(rank if unit in units else 0 for unit in range(n))))
    spectra = _spectra(subject, looks)
    for share in SHARES:
        wish = Wish(params=int(share * smallest.parameters))
        if wish.params is not None and wish.params >= min(own.cost for own in spectra):
            found.append(Pick(tuple(ranks.choose(spectra, wish))))
    cheaper = [pick for pick in dict.fromkeys(found) if any(pick.ranks) and pick != smallest.pick]
    size = {pick: subject.parameters(dict(zip(subject.units, pick.ranks, strict=True))) for pick in cheaper}
    return sorted((pick for pick in cheaper if size[pick] < smallest.parameters), key=lambda pick: -size[pick])[:16]


def _spectra(subject: Subject, looks: Looks) -> list[Spectrum]:
    """For each unit the energy of the i-th terms of all its matrices together, which cost as much as these do."""
    cost = [subject.parameters({unit: 1}) for unit in subject.units]
    return [
        Spectrum(np.sqrt(energy), (own, 0), float(energy.sum()))
        for energy, own in zip(looks.spectra, cost, strict=True)
    ]
