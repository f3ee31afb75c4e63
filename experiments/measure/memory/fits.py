"""What fits on a card: the largest batch of a length, and the largest length of one row.

A step's peak is the largest of what is alive at its moments. What is alive at one is affine in the batch, and affine
(fused attention) or quadratic (attention scores that are kept) in the length. So the peak is convex in each: a line
through two plans lies above it between them and below it beyond them, and where three lie on one line, it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from experiments.measure.memory.contenders import CONTENDERS, Contender, setup, traits
from experiments.measure.memory.plans import Plans

GIB = 2**30
CARDS = (16.0, 24.0, 32.0, 80.0)  # GiB
RESERVE = 1.0  # GiB for the CUDA context, libraries' workspaces and gaps of the allocator: assumed
LENGTHS = (512, 2048, 8192)
STEP = 64  # largest lengths are multiples of it
MOST = 1 << 20  # more than anyone asks for
FARTHER = 512  # times what is known to fit: where the peak does not grow at first, no line is a limit


class Request(NamedTuple):
    """What is asked for. Cards and the reserve, which no plan gets, are in GiB."""

    models: Sequence[str]
    contenders: Sequence[Contender] = CONTENDERS
    lengths: Sequence[int] = LENGTHS
    cards: Sequence[float] = CARDS
    reserve: float = RESERVE


def largest(peak: Callable[[int], int], capacity: float, known: dict[int, int], most: int = MOST) -> int:
    """The largest x of 1 to `most` with peak(x) <= capacity, 0 if there is none.

    peak grows, and is convex from 2 on: one row is a special case to kernels. known has points of `peak` and gets those
    that this computes, so that another capacity needs fewer.
    """

    def at(x: int) -> int:
        if x not in known:
            known[x] = peak(x)
        return known[x]

    if all(size > capacity for size in known.values()) and at(1) > capacity:
        return 0
    if len(known) < 2:
        at(min(2, most))
    while True:
        below = [x for x in sorted(known) if known[x] <= capacity]
        above = [x for x in sorted(known) if known[x] > capacity]
        low, high = below[-1], above[0] if above else most + 1
        sure = _reach([low, high], known, capacity) if above and low > 1 else low
        lines = [line for line in (_convex(below, above, known)[-2:], above[:2]) if len(line) == 2]
        limit = min([high - 1, *(_reach(line, known, capacity) for line in lines)])  # a line goes on below the peak
        if sure >= limit:
            return sure
        if not above:
            guess = limit if lines else _reach(below[-2:], known, capacity)
            at(max(low + 1, min(guess, limit, FARTHER * low)))
        else:
            at(limit if limit < high - 1 else (sure + limit + 1) // 2)


def _convex(below: list[int], above: list[int], known: Mapping[int, int]) -> list[int]:
    """The points below without 1, unless it lies on one line with the others."""
    three = [*below, *above][:3]
    if three[0] > 1 or len(three) < 3:
        return [x for x in below if x > 1]
    first, second, third = (known[x] for x in three)
    on_line = (second - first) * (three[2] - 1) == (third - first) * (three[1] - 1)
    return below if on_line else below[1:]


def _reach(line: Sequence[int], known: Mapping[int, int], capacity: float) -> int:
    """The largest x at which the line through two known points is not above the capacity."""
    left, right = line
    rise = known[right] - known[left]
    return MOST if rise <= 0 else min(MOST, left + int(capacity - known[left]) * (right - left) // rise)


def fits(plans: Plans, request: Request) -> pd.DataFrame:
    """A row for each model, method, checkpointing, card and length: `batch`, the largest, 0 if one row does not fit.

    In rows with `asked` = length it is the length that is the largest, at batch 1, in multiples of STEP. A length that
    a model with learnt positions cannot read has no rows; if it can read none, its own largest takes their place.
    Raises InputError as `experiments.measure.memory.planner.plan`.
    """
    rows = []
    for model in request.models:
        for contender in request.contenders:
            for checkpointing in (False, True):
                shared = {
                    "model": model,
                    "positions": traits(model).positions,
                    "method": contender.title,
                    "precision": contender.precision,
                    "checkpointing": checkpointing,
                    "reserve": request.reserve,
                }
                peaks = _Peaks(plans, model, contender, checkpointing)
                rows += [shared | row for row in _of_method(peaks, request)]
    return pd.DataFrame(rows)


class _Peaks:
    """Peaks of one model, method and checkpointing, by batch and length."""

    def __init__(self, plans: Plans, model: str, contender: Contender, checkpointing: bool) -> None:
        self.plans, self.model, self.contender, self.checkpointing = plans, model, contender, checkpointing
        self.known: dict[tuple[int, int], int] = {}

    def __call__(self, batch: int, length: int) -> int:
        wanted = setup(self.model, self.contender, batch, length, self.checkpointing)
        return self.known.setdefault((batch, length), self.plans(wanted).peak)


def _of_method(peaks: _Peaks, request: Request) -> list[dict[str, Any]]:
    limit = traits(peaks.model).limit
    capacities = {card: (card - request.reserve) * GIB for card in sorted(request.cards, reverse=True)}
    rows, fitting = [], set(capacities)
    step = min(STEP, limit)
    for length in sorted(length for length in request.lengths if length <= limit) or [limit]:
        known: dict[int, int] = {}
        for card, capacity in capacities.items():
            batch = largest(partial(peaks, length=length), capacity, known) if card in fitting else 0
            if not batch:
                fitting.discard(card)  # longer rows take more
            rows.append({"card": card, "asked": "batch", "length": length, "batch": batch})
    steps = {length // step: peak for (batch, length), peak in peaks.known.items() if batch == 1 and not length % step}
    for card, capacity in capacities.items():
        length = step * largest(lambda x: peaks(1, step * x), capacity, steps, limit // step)
        rows.append({"card": card, "asked": "length", "length": length, "batch": 1})
    return rows
