"""Which runs each number of a study's tables is of, for the page to show them beside it.

A table says in words of what a number is: its headings, its row and its column name a model, a task, a method, a rank.
The runs that have all that is named are those of the number. Of a mean it is said that it is theirs where they are as
many as it says, and their mean and interval in a metric are the same to the last digit; none of them has collapsed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.kit import collapses, naming, tables
from analysis.maths import estimates
from analysis.maths.statistics import mean_text
from analysis.report import made
from experiments.records.source import Runs
from lora.config import InputError

MEAN = re.compile(r"(?P<text>(?P<mean>-?\d*\.?\d+)(?: ± [\d.]+)?) \((?P<n>\d+)(?:; \d+ collapsed)?\)")
EQUALS = re.compile(r"(\S+?) ?= ?([\d.,e-]+)")
BUDGET = re.compile(r"([\d,]+) parameters")
ABOUT = ("model", "task", "label")  # what a heading may name, too
TEXT = [name for name in made.TEXT if name != "r"]
WORDS = (*ABOUT, "settings", "weight_types")
# Columns of numbers, by what tables call them.
NUMBERS = {
    "r": "r", "lr": "lr", "rate": "lr", "n": "train_examples", "trained on": "train_examples", "shown": "shots",
    "epochs": "epochs", "alpha": "alpha", "alpha/r": "alpha_over_r", "parameters": "trainable_params",
    "budget": "budget", "seed": "seed",
}  # fmt: skip
COLUMNS = ("model", "task", "label", "settings", "weight_types", "r", "lr", "head_lr", "seed", "role")  # that are shown
APART = ("lr", "settings", "alpha", "head_lr", "train_examples", "budget")  # what a mean may be of one of, unsaid


class Found(NamedTuple):
    """The runs of a number, by their place in the study's list; metric: the one that it is their mean in, if it is."""

    runs: tuple[int, ...]
    metric: str = ""


class StudyRuns:
    """The runs of a study, and which of them its numbers are of. Without runs.csv there are none."""

    def __init__(self, folder: Path) -> None:
        rows = _read(folder / "runs.csv")
        self.runs: list[dict[str, Any]] = []
        self.own: frozenset[int] = frozenset()
        self.lost: frozenset[int] = frozenset()  # those that have collapsed, which no mean is of
        self.scores: dict[str, dict[int, float]] = {}  # by metric ("loss", "validation loss"), then run
        if rows is not None:
            self._fill(rows)
        self._trained = _trained(folder)
        self._sets: dict[Found, int] = {}  # those that were asked for, in order

    def _fill(self, rows: pd.DataFrame) -> None:
        first = rows.drop_duplicates("run_id")
        self.lost = frozenset(np.flatnonzero(collapses.lost(first)))
        self.runs = [dict(run) for _, run in first.astype(object).iterrows()]
        for run in self.runs:
            run["settings"] = run["settings"] if isinstance(run["settings"], str) else ""
            run["label"] = run["label"] if isinstance(run.get("label"), str) else run["method"]
            run["title"] = naming.title(run["label"], run["settings"])
            run["alpha_over_r"] = run["alpha"] / run["r"] if run["r"] else math.nan
        place = {run["run_id"]: number for number, run in enumerate(self.runs)}
        self.own = frozenset(n for n, run in enumerate(self.runs) if "study" in str(run["role"]))
        names = rows["metric"].where(rows["split"] == "test", rows["split"] + " " + rows["metric"])
        for run_id, metric, value in zip(rows["run_id"], names, rows["value"], strict=True):
            self.scores.setdefault(str(metric), {})[place[run_id]] = value
        self._by_word: dict[str, dict[str, set[int]]] = {}
        for number in self.own:
            for column, word in self._said(self.runs[number]):
                self._by_word.setdefault(word, {}).setdefault(column, set()).add(number)

    @staticmethod
    def _said(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What a table calls a run by, and the column that says it."""
        yield from ((column, run[column]) for column in (*WORDS, "title") if isinstance(run.get(column), str))
        yield "model", f"ours, {run['model']}"
        if not run["settings"]:
            yield "settings", "–"

    def of(self, place: str, head: Sequence[str], row: Sequence[str], column: int) -> Found | None:
        """The runs of the number in a column of a row; None where nothing says that they are fewer than all.

        place: the headings that the table is below.
        """
        found = self.own
        for word in re.split(r"[\s(),:;]+", place):
            found = self._with(found, word, ABOUT)
        for name, text in zip(head, row, strict=False):
            if text != row[column] or name != head[column]:
                found = self._named(found, name, text)
        for word in (head[column], *head[column].split(), *re.split(r"[ ,]+(?=\S+ = )", head[column])):
            found = self._named(found, "", word)
        if (shown := MEAN.match(row[column])) and (exact := self._exact(found, shown, head[column])):
            return exact
        return Found(tuple(sorted(found))) if found != self.own else None

    def mark(self, place: str, head: Sequence[str], row: Sequence[str], column: int) -> int | None:
        """The place of a number's runs in the sets of `data`; None as `of`."""
        found = self.of(place, head, row, column) if self.runs else None
        return None if found is None else self._sets.setdefault(found, len(self._sets))

    def data(self) -> dict[str, Any]:
        """What the page knows of the study's runs, to be written as JSON: columns, a value a run, of which repeated
        ones are written once; and the sets of runs that numbers are of, each with the metric that it is the mean in."""
        trained = [self._trained.get(run["run_id"], ("", "")) for run in self.runs]
        columns = {
            "run": [run["run_id"] for run in self.runs],
            **{name: [_plain(run.get(name)) for run in self.runs] for name in COLUMNS},
            "preset": [preset for _, preset in trained],
            "machine": [machine for machine, _ in trained],
        }
        scores = {
            metric: [float(f"{of[n]:.4g}") if n in of else None for n in range(len(self.runs))]
            for metric, of in self.scores.items()
        }
        return {
            "columns": {name: _coded(values) for name, values in columns.items()},
            "scores": scores,
            "own": sorted(self.own),
            "sets": [[found.metric, *found.runs] for found in self._sets],
        }

    def _with(self, runs: frozenset[int], word: str, columns: Sequence[str]) -> frozenset[int]:
        for column, numbers in self._by_word.get(word, {}).items():
            if column in columns and runs & numbers:
                return runs & numbers
        return runs

    def _named(self, runs: frozenset[int], name: str, text: str) -> frozenset[int]:
        """Those of the runs that have what a cell says below the head `name`; all, where it says nothing of runs."""
        if text in self._by_word and (text != "–" or name == "settings"):
            return self._with(runs, text, [*WORDS, "title"])
        if said := EQUALS.fullmatch(text):
            name, text = said.groups()
        elif said := BUDGET.fullmatch(text):
            name, text = "budget", said[1]
        column, number = NUMBERS.get(name, ""), _number(text)
        if not column or math.isnan(number):
            return runs
        having = frozenset(n for n in runs if math.isclose(_number(self.runs[n].get(column)), number, rel_tol=1e-3))
        return having or runs

    def _exact(self, runs: frozenset[int], shown: re.Match[str], head: str) -> Found | None:
        """Those of the runs whose mean, in a metric, is what is shown; None where there are none, or several such."""
        hits = set()
        for metric, scores in self.scores.items():
            there = (runs & scores.keys()) - self.lost
            for group in (there, *self._apart(there)):
                texts = _texts([scores[run] for run in group], shown["mean"])
                if len(group) == int(shown["n"]) and shown["text"] in texts:
                    hits.add(Found(tuple(sorted(group)), metric))
        said = "validation" in head
        hits = {hit for hit in hits if hit.metric.startswith("validation") == said} or hits
        return min(hits) if len({hit.runs for hit in hits}) == 1 else None

    def _apart(self, runs: frozenset[int]) -> Iterator[frozenset[int]]:
        for column in APART:
            groups: dict[str, set[int]] = {}
            for run in runs:
                groups.setdefault(str(self.runs[run].get(column)), set()).add(run)
            yield from map(frozenset, groups.values())


def _read(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        rows = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), low_memory=False)
        return rows if {"run_id", "role", "split", "metric", "value", "alpha", "settings"} <= set(rows) else None
    except (OSError, ValueError):
        return None  # `made` says so


def _number(value: Any) -> float:
    try:
        return float(str(value).replace(",", ""))
    except ValueError:
        return math.nan


def _texts(values: Sequence[float], like: str) -> Iterator[str]:
    """Their mean as tables write it, in percent and as it is, with as many digits as a number has."""
    mean, digits = estimates.mean(values), len(like.partition(".")[2])
    yield from (mean_text(mean.value, mean.half, math.nan, scale, digits) for scale in (100, 1))


def _plain(value: Any) -> Any:
    """A value as JSON has it, and a reader: 8 and not 8.0, nothing for NaN."""
    if isinstance(value, str):
        return value
    number = _number(value)
    return "" if math.isnan(number) else float(f"{number:.6g}") if number % 1 else int(number)


def _coded(values: Sequence[Any]) -> list[Any]:
    """The values that there are, and for each run the place of its own; the values alone, where they are all others."""
    kinds = list(dict.fromkeys(values))
    return [kinds] if len(kinds) == len(values) else [kinds, [kinds.index(value) for value in values]]


def _trained(folder: Path) -> dict[str, tuple[str, str]]:
    """On what each run was trained, in words, and the preset that makes it; of runs that cannot be read, nothing."""
    preset = folder.parent.name
    try:
        return {run.run_id: _how(run.metrics, preset) for run in Runs(folder, folder.parent.parent / "runs")}
    except InputError:
        return {}


def _how(metrics: Mapping[str, Any], preset: str) -> tuple[str, str]:
    machine, versions = metrics.get("machine") or {}, metrics.get("versions") or {}
    protocol = metrics.get("protocol", tables.FIRST.get(preset))
    parts = [f"{name} {value}" if name == "threads" else str(value) for name, value in machine.items() if value]
    parts += [str(metrics["precision"])] * ("precision" in metrics)
    parts += [f"protocol {protocol:g}"] if protocol else []
    # docs/evidence.md: what desk was, before its protocol became the second
    first = preset == "desk" and protocol == tables.FIRST[preset]
    return "; ".join([*parts, *(f"{name} {of}" for name, of in versions.items())]), "desk1" if first else preset
