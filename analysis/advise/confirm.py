"""CONFIRM=1: the recommendation, the common default and r_max, trained anew with other seeds and tested once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.advise.choose import estimate
from analysis.advise.subject import Ranks, Subject
from analysis.maths.judging import Estimate
from analysis.maths.svd import Array
from experiments import items
from lora.errors import InputError

SEEDS = (0, 1, 2)
DEFAULT = 8  # on q and v, as in peft's and the paper's examples


class Confirmed(NamedTuple):
    """A setting: its ranks, its parameters, its test score, and that of the recommendation minus its own."""

    name: str
    ranks: Ranks
    parameters: int
    metric: str
    score: Estimate
    ours: Estimate


def default(subject: Subject, r_max: int) -> dict[str, int] | None:
    """r = 8 on q and v, or as much of it as the model allows; None for a model without these types."""
    kept = [unit for unit in subject.units if unit in ("q", "v")]
    return dict.fromkeys(kept, min(DEFAULT, r_max)) or None


def confirm(subject: Subject, settings: Mapping[str, Ranks], lr: float) -> list[Confirmed]:
    """Trains each of the settings with three seeds and reads the test set. The first is the recommendation.

    Settings of the same ranks are the same runs. Raises InputError if one diverges.
    """
    wanted = {
        f"{name} seed={seed}": subject.config(ranks, lr, seed, test=True)
        for name, ranks in settings.items()
        for seed in SEEDS
    }
    ids = subject.train(wanted)
    lost = [name for name, run in zip(wanted, ids, strict=True) if run is None]
    if lost:
        raise InputError(f"{lost[0]} diverged at lr = {lr:g}: the other runs are stored; try a lower one by --rates")
    runs = {name: [str(run) for run in ids[at * len(SEEDS) :][: len(SEEDS)]] for at, name in enumerate(settings)}
    scores = {name: scored(subject, own) for name, own in runs.items()}
    metric = "loss" if subject.writes else str(subject.store.metrics(str(ids[0]))["main_metric"])
    ours = next(iter(scores.values()))
    return [
        Confirmed(
            name,
            ranks,
            subject.parameters(ranks),
            metric,
            estimate(*scores[name]),
            estimate(ours[0] - scores[name][0], _minus(ours[1], scores[name][1])),
        )
        for name, ranks in settings.items()
    ]


def _minus(ours: Array | None, theirs: Array | None) -> Array | None:
    return None if ours is None or theirs is None else ours - theirs


def scored(subject: Subject, runs: Sequence[str]) -> tuple[Array, Array | None]:
    """Test scores of runs, (runs,), higher is better, minus the loss where text is written; and of their items (runs,
    items), where the score is their mean."""
    metrics = [subject.store.metrics(run) for run in runs]
    main = "loss" if subject.writes else metrics[0]["main_metric"]
    found = np.array([_value(one, main) for one in metrics])
    if subject.writes:
        found = -found
    if main not in ("loss", "accuracy"):
        return found, None
    stored = [subject.store.folder(run) / items.FILE for run in runs]
    each = [items.unpack(json.loads(path.read_text(encoding="utf-8"))) for path in stored]
    if main == "accuracy":
        right = [one.correct for one in each if one.correct is not None]
        return found, np.stack(right).astype(float) if len(right) == len(runs) and len(right[0]) else None
    losses = [
        -one.loss.astype(float) * one.weight / one.weight.mean()
        for one in each
        if one.loss is not None and one.weight is not None
    ]
    return found, np.stack(losses) if len(losses) == len(runs) else None


def _value(metrics: Mapping[str, object], name: str) -> float:
    rows = metrics["metrics"]
    assert isinstance(rows, list)
    return next(float(row["value"]) for row in rows if (row["split"], row["metric"]) == ("test", name))
