"""Metrics of what a language model writes, against the references of each input; nothing is fetched.

One function a metric: (outputs, rows) -> float, n outputs and the n rows of the data they are for. A row has
`references`, a list of at least one text, and what a metric needs beside. To add a metric, write one and name it in
METRICS. Values are fractions, but for NIST and CIDEr, which have scales of their own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.metrics.text_metrics import overlap
from experiments.metrics.text_metrics.sql import execution, logical_form
from lora.config import InputError

METRICS: dict[str, Callable[[list[str], list[Mapping[str, Any]]], float]] = {
    "accuracy": overlap.accuracy,
    "bleu": overlap.bleu,
    "cider": overlap.cider,
    "execution": execution,
    "logical_form": logical_form,
    "meteor_stem": overlap.meteor_stem,
    "nist": overlap.nist,
    "rouge_1": overlap.rouge_1,
    "rouge_2": overlap.rouge_2,
    "rouge_l": overlap.rouge_l,
    "rouge_lf": overlap.rouge_lf,
    "ter": overlap.ter,
}
EXACT = ("accuracy", "logical_form")  # shares of outputs that are right, each right or wrong by itself


def check(names: Iterable[str]) -> None:
    """Raises InputError for a name that is not in METRICS, or whose package is not installed."""
    for name in names:
        if name not in METRICS:
            raise InputError(f"unknown text metric '{name}'; there are: {', '.join(METRICS)}")
        if name in overlap.COCO:
            overlap.captions(name)


def right(name: str, rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[bool] | None:
    """Which of n outputs are right by a metric of EXACT; None for another, which does not say so of one output."""
    if name not in EXACT:
        return None
    return [METRICS[name]([output], [row]) == 1 for output, row in zip(outputs, rows, strict=True)]


def score(names: Sequence[str], rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> dict[str, float]:
    """{name: value} of n outputs for n rows; where rows have a `group`, also {name_group: value}, of its rows alone.

    Raises InputError for an unknown name and for no rows, and ValueError where the lengths differ.
    """
    check(names)
    pairs = list(zip(outputs, rows, strict=True))
    if not pairs:
        raise InputError("there are no outputs to score: the split is empty")
    groups = sorted({row["group"] for row in rows if row.get("group") is not None})
    parts = {"": pairs} | {f"_{group}": [pair for pair in pairs if pair[1].get("group") == group] for group in groups}
    return {
        name + suffix: METRICS[name]([output for output, _ in part], [row for _, row in part])
        for name in names
        for suffix, part in parts.items()
    }
