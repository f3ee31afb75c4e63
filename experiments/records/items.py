"""The test items of several runs as one array, paired: a row a run, a column an item, the same item in every row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.records.source import Run
from lora.config import InputError

Kind = Literal["correct", "loss", "weight"]


def items(runs: Iterable[Run], kind: Kind = "correct") -> NDArray[Any]:
    """(runs, items): of every run, in the order given, whether each test item is right (bool), its loss (nats a target
    token, or a squared error), or the number of target tokens (`weight`) that the loss is a mean over.

    The columns are in the order of the task. Raises InputError where there is no run, a run has no such items or its
    file is damaged, and where two runs are not of the same items.
    """
    rows: list[NDArray[Any]] = []
    first: Run | None = None
    for run in runs:
        found = getattr(run.items(), kind)
        if found is None:
            raise InputError(f"run {run.run_id} has no {kind} of its test items: its task is of another kind")
        first = first or run
        if _of(run) != _of(first):
            raise InputError(
                f"runs {first.run_id} and {run.run_id} are not of the same test items, so that they cannot be paired: "
                "compare runs of one task, with one test split"
            )
        rows.append(found)
    if not rows:
        raise InputError("there is no run whose test items could be read")
    return np.stack(rows)


def _of(run: Run) -> tuple[Any, Any]:
    packed = run.packed_items or {}
    return packed.get("of"), packed.get("n")
