"""CONFIRM=1: the recommendation, the common default and r_max, trained anew with other seeds, and tested."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analysis.advise.choose import estimate
from analysis.advise.looks import Looked, scored, together
from analysis.advise.subject import Ranks, Subject
from analysis.maths.estimates import Estimate
from experiments import items

SEEDS = (0, 1, 2)
DEFAULT = 8  # on q and v, as in the examples of the paper and of peft


class Confirmed(NamedTuple):
    """A setting: its ranks and parameters, its test score, and the recommendation's minus its own."""

    name: str
    ranks: Ranks
    parameters: int
    score: Estimate
    ours: Estimate


def settings(subject: Subject, advised: Ranks, largest: Ranks) -> dict[str, Ranks]:
    """What is trained, the recommendation first; the default only where the model has q or v."""
    default = {unit: min(DEFAULT, largest[unit]) for unit in subject.units if unit in ("q", "v")}
    return {"the advice": advised, **({"the common default": default} if default else {}), "the largest": largest}


def confirm(subject: Subject, wanted: Mapping[str, Ranks], lr: float, metric: str) -> list[Confirmed]:
    """Trains each with three seeds and reads the test set, by this metric. Raises InputError if one diverges."""
    runs = {
        f"{name} seed={seed}": subject.config(ranks, lr, seed, test=True)
        for name, ranks in wanted.items()
        for seed in SEEDS
    }
    ids = subject.train(runs, "give lower rates by --rates")
    found = {name: tested(subject, ids[at * len(SEEDS) :][: len(SEEDS)], metric) for at, name in enumerate(wanted)}
    first = next(iter(found.values()))
    return [
        Confirmed(
            name, ranks, subject.parameters(ranks), estimate(found[name]), estimate(first.minus(found[name]))
        )
        for name, ranks in wanted.items()
    ]  # fmt: skip


def tested(subject: Subject, runs: Sequence[str], metric: str) -> Looked:
    """Test scores of runs, higher is better: of a metric, or minus the loss."""
    rows = []
    for run in runs:
        metrics = subject.store.metrics(run)
        scores = {row["metric"]: row["value"] for row in metrics["metrics"] if row["split"] == "test"}
        packed = json.loads((subject.store.folder(run) / items.FILE).read_text(encoding="utf-8"))
        rows.append(scored(scores, items.unpack(packed), metric))
    return together(rows)
