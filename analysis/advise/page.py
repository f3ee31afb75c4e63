"""advice.md and advice.json: what is recommended, what it costs, and what it follows from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.advise import ready
from analysis.advise.choose import Judged, Margin, Recommended
from analysis.advise.confirm import Confirmed
from analysis.advise.looks import Pick
from analysis.advise.plan import Plan, Size
from analysis.advise.rates import Chosen
from analysis.advise.subject import SEEDS, Subject
from analysis.maths.judging import Estimate
from experiments.markdown import markdown
from experiments.measure.memory.units import human
from experiments.progress import span


@dataclass(frozen=True)
class Advice:
    """All that was found. size: of the largest adapter; own: of the recommended one; seconds: of the runs and looks."""

    subject: Subject
    plan: Plan
    size: Size
    rate: Chosen
    found: Recommended
    own: Size
    asked: Margin
    metric: str
    heads: int
    floor: float | None
    runs: list[str]
    confirmed: list[Confirmed] = field(default_factory=list)

    @property
    def ranks(self) -> dict[str, int]:
        """Recommended, by unit; those without an adapter are left out."""
        return kept(self.subject, self.found.best.pick)

    @property
    def plain(self) -> dict[str, int]:
        """The best of one rank for all."""
        return kept(self.subject, self.found.plain.pick)

    @property
    def bytes(self) -> int:
        """Of the stored adapter and head, fp32."""
        return 4 * (self.found.best.parameters + self.heads)

    @property
    def sentence(self) -> str:
        """The recommendation."""
        alpha, lr = f"{self.subject.alpha:g}", f"{self.rate.lr:g}"
        return f"{named(self.subject, self.found.best.pick)}, alpha = {alpha}, lr = {lr}"


def kept(subject: Subject, pick: Pick) -> dict[str, int]:
    """The ranks of a pick, without units that get none."""
    return {unit: rank for unit, rank in zip(subject.units, pick.ranks, strict=True) if rank}


def named(subject: Subject, pick: Pick) -> str:
    """`r = 8 on q v`, or `q 4, v 12`."""
    own = kept(subject, pick)
    if not own:
        return "no adapter"
    each = set(own.values())
    text = (
        f"r = {each.pop()} on {' '.join(own)}"
        if len(each) == 1
        else ", ".join(f"{unit} {rank}" for unit, rank in own.items())
    )
    return f"{text}, trained on" if pick.healed else text


def scale(advice: Advice) -> tuple[float, str]:
    """What scores are multiplied by as they are written, and their unit."""
    return (1.0, "nats") if advice.metric == "loss" else (100.0, "points")


def _score(advice: Advice, found: Estimate, signed: bool = False) -> str:
    """A score with its 95% interval; a loss as it is, though less is better, a difference of losses as a gain."""
    factor, _ = scale(advice)
    value = factor * found.value * (-1 if advice.metric == "loss" and not signed else 1)
    digits = 4 if advice.metric == "loss" else 1
    half = factor * (found.interval[1] - found.value)
    sign = "+" if signed else ""
    text = f"{value + 0.0:{sign}.{digits}f}"
    return text if math.isnan(half) else f"{text} ± {half:.{digits}f}"


def markdown_page(advice: Advice) -> str:
    """advice.md."""
    blocks = [
        f"# Advice: {advice.subject.model} on {advice.subject.task}",
        f"> **{advice.sentence}**",
        _reason(advice),
        "![the advice as a picture](advice.png)",
        _facts(advice),
        *(f"**Note.** {text[0].upper()}{text[1:]}." for text in [*advice.rate.warnings, *_doubts(advice)]),
        *([_confirmed(advice)] if advice.confirmed else [_not_tested()]),
        "## Quality against rank",
        _curve(advice),
        "## What each weight type is worth",
        _worth(advice),
        *([_layers(advice)] if advice.found.layers else []),
        "## Smaller adapters that were looked at",
        _candidates(advice),
        "## The learning rate",
        _rates(advice),
        "## How it was found",
        _method(advice),
        "## Settings",
        _settings(advice),
    ]
    return "\n\n".join(blocks) + "\n"


def _reason(advice: Advice) -> str:
    best, factor = advice.found.best, scale(advice)[0]
    whole = " ".join(advice.subject.units)
    share = best.parameters / advice.found.largest.parameters
    return (
        f"By its 95% bound at most {-factor * best.bound if best.bound < 0 else 0:.2g} {scale(advice)[1]} below r = "
        f"{advice.plan.r_max} on {whole}, with {share:.1%} of its parameters (margin: {factor * advice.found.margin:.2g} "
        f"{scale(advice)[1]}). Judged on validation data by cutting the updates that {len(SEEDS)} seeds have learnt."
    )


def _facts(advice: Advice) -> str:
    best, own = advice.found.best, advice.own
    held = human(own.memory.peak) if own.memory else f"not planned: {own.why}"
    took = span(own.run(advice.plan.epochs))
    rows = [
        (f"expected validation {advice.metric}", _score(advice, best.score)),
        (f"r = {advice.plan.r_max} on all", _score(advice, advice.found.largest.score)),
        *([("the head alone", f"{100 * advice.floor:.1f}")] if advice.floor is not None else []),
        ("parameters of the adapter", f"{best.parameters:,}"),
        ("stored, with the head", human(advice.bytes)),
        ("memory of a training step", held),
        ("a training here", f"about {took}, {advice.plan.epochs} epochs of {advice.size.train:,} examples"),
    ]
    return markdown(pd.DataFrame(rows, columns=["", "recommended"]))


def _doubts(advice: Advice) -> list[str]:
    found, factor, doubts = advice.found, scale(advice)[0], []
    unit = scale(advice)[1]
    if found.best.pick == found.largest.pick:
        below = found.curve[-2]
        doubts.append(
            f"no smaller adapter is within the margin by its bound; r = {max(below.pick.ranks)} is {_score(advice, below.above, True)} "
            f"{unit} beside it: more validation data or a larger MARGIN may tell"
        )
    ranks = [one for one in found.curve if found.holds(one) and one is not found.largest]
    worse = [
        one for one in found.curve if ranks and max(one.pick.ranks) > max(ranks[0].pick.ranks) and not found.holds(one)
    ]
    if worse:
        doubts.append(
            f"the curve is not even: r = {max(worse[0].pick.ranks)} is outside the margin, a smaller rank within it"
        )
    if found.best.pick.healed:
        doubts.append(
            "this rank is within the margin only after a tenth of the steps more: the cut alone says too little of it"
        )
    error = found.largest.score.error
    if error > 0 and factor * error > 4 * factor * found.margin:
        doubts.append(f"the validation set is small: scores have a standard error of {factor * error:.2g} {unit}")
    return doubts


def _not_tested() -> str:
    return "The test set was not read. `CONFIRM=1` trains this, r = 8 on q and v, and the largest, and reads it once."


def _confirmed(advice: Advice) -> str:
    rows = [
        {
            "trained anew": one.name,
            "setting": named(advice.subject, Pick(tuple(one.ranks.get(unit, 0) for unit in advice.subject.units))),
            "parameters": f"{one.parameters:,}",
            f"test {one.metric}": _score(advice, one.score),
            f"recommended minus this ({scale(advice)[1]})": _score(advice, one.ours, True) if number else "",
        }
        for number, one in enumerate(advice.confirmed)
    ]
    note = (
        "" if advice.metric != "loss" else " Differences are of minus the loss: above 0 the recommendation is better."
    )
    return f"## Confirmed on test data\n\n{markdown(pd.DataFrame(rows))}\n\nThree seeds that the advice did not use, ± 95%.{note}"


def _judged(advice: Advice, rows: Sequence[tuple[str, Judged]], head: str) -> str:
    unit = scale(advice)[1]
    return markdown(
        pd.DataFrame(
            [
                {
                    head: name,
                    "parameters": f"{one.parameters:,}",
                    f"validation {advice.metric}": _score(advice, one.score),
                    f"beside r_max ({unit})": _score(advice, one.above, True),
                    "95% bound": f"{scale(advice)[0] * one.bound:+.2g}",
                    "within the margin": "yes" if advice.found.holds(one) else "",
                }
                for name, one in rows
            ]
        )
    )


def _curve(advice: Advice) -> str:
    return _judged(advice, [(str(max(one.pick.ranks)), one) for one in advice.found.curve], "cut to r")


def _candidates(advice: Advice) -> str:
    if not advice.found.candidates:
        return "None is smaller."
    return _judged(advice, [(named(advice.subject, one.pick), one) for one in advice.found.candidates], "kept")


def _worth(advice: Advice) -> str:
    factor, unit = scale(advice)
    nothing = advice.found.curve[0].score.value
    rows = []
    for own in advice.found.worth:
        row = {"weight type": own.unit, "parameters of r = 1": f"{own.parameters:,}"}
        for one in own.alone:
            row[f"alone, r = {max(one.pick.ranks)} (gain, {unit})"] = f"{factor * (one.score.value - nothing):+.2g}"
        row[f"left out ({unit})"] = _score(advice, own.cost.above, True)
        best = own.alone[0]
        row["gain alone at r = 1 per 10,000 parameters"] = (
            f"{factor * (best.score.value - nothing) / own.parameters * 1e4:+.2g}"
        )
        rows.append(row)
    text = "Alone: only this type keeps its update, cut to r; the gain is over no update. Left out: all others keep theirs, whole."
    return f"{markdown(pd.DataFrame(rows))}\n\n{text}"


def _layers(advice: Advice) -> str:
    unit = scale(advice)[1]
    rows = [
        {
            "layers left out": f"{block[0]} to {block[-1]}" if len(block) > 1 else str(block[0]),
            unit: _score(advice, one.above, True),
        }
        for one in advice.found.layers
        for block in [one.pick.without]
    ]
    return markdown(pd.DataFrame(rows))


def _rates(advice: Advice) -> str:
    shares = sorted({one.share for one in advice.rate.tried})
    rows = []
    for lr in sorted({one.lr for one in advice.rate.tried}):
        row = {"lr": f"{lr:g}"}
        for share in shares:
            found = [one for one in advice.rate.tried if (one.lr, one.share) == (lr, share)]
            row[f"loss after {share:.0%}"] = _loss(found[0].loss, found[0].collapsed) if found else ""
        rows.append(row)
    return f"Validation loss at r = {advice.plan.r_max}, by the share of the examples that was trained on.\n\n{markdown(pd.DataFrame(rows))}"


def _loss(loss: float | None, collapsed: bool) -> str:
    return "diverged" if loss is None else f"{loss:.4f}{', collapsed' if collapsed else ''}"


def _method(advice: Advice) -> str:
    plan, size = advice.plan, advice.size
    return (
        f"{plan.runs} runs, as much training as {plan.worth:.3g} whole ones, and {plan.looks} looks for each of "
        f"{len(SEEDS)} seeds: {plan.share(size):.0%} of the time of a sweep of {plan.sweep()} runs. The largest adapter is "
        "trained, its updates are cut to their best approximation of rank k (Eckart and Young), and the model is scored on "
        "validation data. A cut is a hint, not a training: a rank that is trained from the start may do better than the "
        "cut. Errors are of seeds and items (a two-way analysis of variance). [docs/advice.md](../../../docs/advice.md) "
        "says more."
    )


def _settings(advice: Advice) -> str:
    subject, lr = advice.subject, advice.rate.lr
    uneven = len(set(advice.ranks.values())) > 1
    note = f" They know one rank for all: these are {named(subject, advice.found.plain.pick)}." if uneven else ""
    shared = ready.modules(subject, advice.ranks).shared
    fused = (
        "\n\nA projection here holds several weight types: peft adapts all of it, at the largest of their ranks."
        if shared
        else ""
    )
    return (
        f"peft (also as [adapter_config.json](adapter_config.json)):\n\n```python\n{ready.python(ready.peft(subject, advice.ranks))}"
        f"```{fused}\n\nLLaMA-Factory and axolotl.{note}\n\n"
        f"```yaml\n{ready.llama_factory(subject, advice.plain, lr)}```\n\n```yaml\n{ready.axolotl(subject, advice.plain, lr)}```"
    )


def content(advice: Advice) -> dict[str, Any]:
    """advice.json: numbers as fractions, losses negative where they are scores."""
    found = advice.found
    return {
        "model": advice.subject.model,
        "task": advice.subject.task,
        "preset": advice.subject.asked.preset,
        "recommended": {
            "ranks": advice.ranks,
            "alpha": advice.subject.alpha,
            "lr": advice.rate.lr,
            "parameters": found.best.parameters,
            "bytes": advice.bytes,
            "memory": advice.own.memory.peak if advice.own.memory else None,
            "seconds": advice.own.run(advice.plan.epochs),
        },
        "one_rank": advice.plain,
        "largest": {
            "r": advice.plan.r_max,
            "units": list(advice.subject.units),
            "parameters": found.largest.parameters,
        },
        "metric": advice.metric,
        "margin": found.margin,
        "floor": advice.floor,
        "expected": _numbers(found.best.score),
        "warnings": [*advice.rate.warnings, *_doubts(advice)],
        "rates": [one._asdict() for one in advice.rate.tried],
        "curve": [_row(one) for one in found.curve],
        "units": [
            {
                "unit": own.unit,
                "parameters": own.parameters,
                "alone": [_row(one) for one in own.alone],
                "left_out": _row(own.cost),
            }
            for own in found.worth
        ],
        "layers": [_row(one) for one in found.layers],
        "candidates": [_row(one) for one in found.candidates],
        "confirmed": [
            {**one._asdict(), "score": _numbers(one.score), "ours": _numbers(one.ours), "ranks": dict(one.ranks)}
            for one in advice.confirmed
        ],
        "runs": advice.runs,
        "cost": {
            "runs": advice.plan.runs,
            "whole_runs": advice.plan.worth,
            "looks": advice.plan.looks,
            "planned_seconds": advice.plan.seconds(advice.size),
            "sweep_runs": advice.plan.sweep(),
            "share": advice.plan.share(advice.size),
        },
    }


def _row(one: Judged) -> dict[str, Any]:
    return {
        "ranks": list(one.pick.ranks),
        "without_layers": list(one.pick.without),
        "healed": one.pick.healed,
        "parameters": one.parameters,
        "score": _numbers(one.score),
        "above": _numbers(one.above),
        "bound": one.bound,
    }


def _numbers(found: Estimate) -> dict[str, float | None]:
    low, high = found.interval
    return {
        name: None if math.isnan(value) else float(value)
        for name, value in (("value", found.value), ("low", low), ("high", high))
    }
