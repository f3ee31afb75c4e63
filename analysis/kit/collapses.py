"""Runs that have collapsed: which they are, and scores without theirs.

A mean of runs of which some have collapsed says nothing of the others: they are counted apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial

import pandas as pd

from experiments import collapse
from experiments.records.source import Run

# Of a task's fields those that its validation items do not depend on: each split is cut by itself, and none by a run's
# seed (experiments/tasks).
NOT_VALIDATION = ("train_examples", "test_examples", "max_length")
# A language model that chooses among words is compared by its loss, which has no such edge.
NO_CLASSIFIER = "as_text"


def shares(runs: Iterable[Run]) -> dict[str, float]:
    """The share of the commonest class in each validation split of which a run says it."""
    said = ((run, run.metrics.get("majority_share")) for run in runs)
    return {run.read(partial(_split, run)): share for run, share in said if share is not None}


def of(run: Run, known: Mapping[str, float]) -> bool | None:
    """Whether a classifier has collapsed (experiments/collapse.py): as the run says or, where it is of before runs said
    so, by its own validation accuracy and the `shares` that are known. None where they are not, or it classifies
    nothing."""
    if run.config["task"].get("family") == NO_CLASSIFIER:
        return None
    if (said := run.metrics.get("collapsed")) is not None:
        return bool(said)
    scores = {one["metric"]: one["value"] for one in run.metrics["metrics"] if one["split"] == "validation"}
    return collapse.check(scores.get("accuracy"), known.get(_split(run))).collapsed


def _split(run: Run) -> str:
    task = {name: value for name, value in run.config["task"].items() if name not in NOT_VALIDATION}
    return json.dumps(task, sort_keys=True)


def lost(runs: pd.DataFrame) -> pd.Series:
    """Which rows are of runs that have collapsed, by the column `collapsed`; what nothing is known of has not."""
    said = runs["collapsed"] if "collapsed" in runs else pd.Series(None, runs.index, dtype=object)
    return said.map(lambda value: value is True or value == 1).astype(bool)


def apart(runs: pd.DataFrame) -> pd.DataFrame:
    """runs, of which those that have collapsed have no `value`: so they are in no mean, comparison or figure."""
    return runs.assign(value=runs["value"].where(~lost(runs)))
