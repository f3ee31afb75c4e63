"""A claim as a small picture: its estimate and those of its cases with their intervals, and where it would hold."""

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup, escape

from analysis.claims import words
from analysis.claims.engine import Judged, counts
from analysis.maths.estimates import Estimate

WIDTH, LABELS, ROW, FOOT = 340, 142, 17, 20  # of the picture, of what stands left of its rows, in pixels
MOST = 7  # cases that are drawn
LETTERS = 22  # of a label


class _Axis:
    """From estimates to pixels; what lies outside is at its end."""

    def __init__(self, values: Sequence[float]) -> None:
        pad = 0.06 * (max(values) - min(values)) or 1.0
        self.low, self.high = min(values) - pad, max(values) + pad

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(LABELS + (WIDTH - LABELS) * (inside - self.low) / (self.high - self.low), 1)


def draw(judged: Judged) -> Markup:
    """An SVG, coloured by report.css; empty without an estimate.

    The axis holds all estimates, the threshold and the interval of the whole. Where that of a case is longer, an arrow
    says that it goes on.
    """
    claim, whole = judged.claim, judged.estimate
    if whole is None:
        return Markup()
    cases = [(case.place, case.estimate) for case in judged.cases if counts(claim, case)]
    rows = [("together", whole), *cases[:MOST]] if len(cases) > 1 else [(cases[0][0], whole)]
    ends = [end for end in claim.region if math.isfinite(end)]
    x = _Axis([*ends, *whole.interval, *(found.value for _, found in rows)])
    foot = ROW * len(rows)
    start, end = map(x, claim.region)
    parts = [f'<rect class="region" x="{start}" width="{max(end - start, 1):.1f}" height="{foot}"/>']
    for value in ends:
        anchor = "start" if x(value) < LABELS + 30 else "end" if x(value) > WIDTH - 30 else "middle"
        parts.append(f'<path class="end" d="M{x(value)} 0V{foot + 4}"/>')
        text = claim.scale.text(value) if value or claim.scale.log else "0"
        parts.append(f'<text x="{x(value)}" y="{foot + 15}" text-anchor="{anchor}">{text}</text>')
    for place, (label, found) in enumerate(rows):
        parts += _row(label, found, ROW * place + ROW // 2, x, "whole" if place == 0 else "case")
    if len(cases) > MOST:
        parts.append(f'<text y="{foot + 15}">and {len(cases) - MOST} more</text>')
    name = escape(f"{words.estimate(claim, whole)}; the claim holds {claim.threshold}")
    size = f'viewBox="0 0 {WIDTH} {foot + FOOT}" width="{WIDTH}" height="{foot + FOOT}"'
    return Markup(f'<svg class="forest" {size} role="img" aria-label="{name}">{"".join(parts)}</svg>')


def _row(label: str, found: Estimate, y: int, x: _Axis, kind: str) -> Iterator[str]:
    label = label.partition(" (")[0]
    short = label if len(label) <= LETTERS else f"{label[: LETTERS // 2 - 1]}…{label[-LETTERS // 2 :]}"
    yield f'<text y="{y + 4}">{escape(short)}</text>'
    if found.error > 0:
        low, high = found.interval
        left = f"M{x(low) + 5} {y - 4}l-5 4 5 4" if low < x.low else ""
        right = f"M{x(high) - 5} {y - 4}l5 4 -5 4" if high > x.high else ""
        yield f'<path class="{kind}" d="M{x(low)} {y}H{x(high)}{left}{right}"/>'
    yield f'<circle class="{kind}" cx="{x(found.value)}" cy="{y}" r="{5 if kind == "whole" else 3}"/>'
