"""All that was found, in words and numbers: what advice.md, advice.json and advice.png are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from analysis.advise.choose import Recommended
from analysis.advise.confirm import Confirmed
from analysis.advise.looks import Pick
from analysis.advise.plan import Plan, Size
from analysis.advise.rates import Chosen
from analysis.advise.subject import Subject
from analysis.maths.estimates import Estimate


class Advice(NamedTuple):
    """All that was found. size: of the largest adapter's runs; own: of the recommended one's; head: its parameters;
    floor: the validation score of the head alone, if it was trained; looked: seconds that looks took."""

    subject: Subject
    plan: Plan
    size: Size
    rate: Chosen
    found: Recommended
    own: Size
    metric: str
    head: int
    floor: float | None
    looked: float
    confirmed: Sequence[Confirmed] = ()

    @property
    def ranks(self) -> dict[str, int]:
        """Recommended, by unit; those without an adapter are left out."""
        return kept(self.subject, self.found.best.pick)

    @property
    def plain(self) -> dict[str, int]:
        """The best with one rank."""
        return kept(self.subject, self.found.plain.pick)

    @property
    def sentence(self) -> str:
        """The recommendation."""
        return f"{named(self.ranks)}, alpha = {self.subject.alpha:g}, lr = {self.rate.lr:g}"

    @property
    def factor(self) -> float:
        """What scores are multiplied by as they are written."""
        return 1.0 if self.metric == "loss" else 100.0

    @property
    def unit(self) -> str:
        """Of differences of scores."""
        return "nats" if self.metric == "loss" else "points"

    def shown(self, value: float) -> float:
        """A score as it is written: in percent, or the loss."""
        return -value if self.metric == "loss" else self.factor * value

    def text(self, found: Estimate, difference: bool = False) -> str:
        """A score, or a difference of scores (above 0 is better), ± half of its 95% interval."""
        digits = 4 if self.metric == "loss" else 1
        value = f"{self.factor * found.value:+.{digits}f}" if difference else f"{self.shown(found.value):.{digits}f}"
        half = self.factor * (found.interval[1] - found.value)
        return value if math.isnan(half) else f"{value} ± {half:.{digits}f}"


def kept(subject: Subject, pick: Pick) -> dict[str, int]:
    """The ranks of a pick, without units that get none."""
    return {unit: rank for unit, rank in zip(subject.units, pick.ranks, strict=True) if rank}


def named(ranks: Mapping[str, int]) -> str:
    """`r = 8 on q v`, or `q 4, v 12`."""
    each = set(ranks.values())
    if len(each) == 1:
        return f"r = {each.pop()} on {' '.join(ranks)}"
    return ", ".join(f"{unit} {rank}" for unit, rank in ranks.items()) or "no adapter"


def notes(advice: Advice) -> list[str]:
    """What a reader must know before he believes it."""
    found, said = advice.found, list(advice.rate.warnings)
    if found.best is found.largest:
        said.append(
            "no smaller adapter is within the margin by its bound: more validation data, or a larger MARGIN, may tell"
        )
    uneven = [one for one in found.curve if one.parameters > found.best.parameters and not found.holds(one)]
    if uneven and len(set(found.best.pick.ranks)) == 1:
        named_ranks = ", ".join(str(max(one.pick.ranks)) for one in uneven)
        said.append(f"the curve is not even: larger cuts (r = {named_ranks}) are not within the margin by their bounds")
    if found.best.pick.healed:
        said.append("the cut alone is not within the margin: it was trained on for a tenth of the steps")
    return said


def content(advice: Advice) -> dict[str, Any]:
    """advice.json: scores are higher the better (minus a loss), as fractions; seconds are of this machine."""
    subject, own, metrics = advice.subject, advice.own, advice.subject.store.metrics
    return {
        "model": subject.model,
        "task": subject.task,
        "preset": subject.asked.preset,
        "ranks": advice.ranks,
        "alpha": subject.alpha,
        "lr": advice.rate.lr,
        "one_rank": advice.plain,
        "largest": dict.fromkeys(subject.units, advice.plan.r_max),
        "metric": advice.metric,
        "parameters": advice.found.best.parameters,
        "bytes": 4 * (advice.found.best.parameters + advice.head),
        "memory": own.memory.peak if own.memory else None,
        "training_seconds": own.run(advice.plan.epochs),
        "train_examples": advice.size.train,
        "floor": advice.floor,
        "notes": notes(advice),
        "rates": plain(advice.rate.tried),
        "found": plain(advice.found),
        "confirmed": plain(advice.confirmed),
        "plan": plain(advice.plan),
        "share_of_sweep": advice.plan.share(advice.size),
        "spent_seconds": sum(metrics(run)["train_seconds"] for run in subject.made) + advice.looked,
        "runs": list(subject.made),
    }


def plain(value: Any) -> Any:
    """Tuples with names as mappings, and numbers that are none as None: what JSON has."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
