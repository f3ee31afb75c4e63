"""A record: one line of records.jsonl.gz, all that tables and figures need of a run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments import items as item_files
from experiments.collapse import majority
from experiments.store import run_id as identify

HASHED = re.compile(r"[0-9a-f]{12}")  # a run that could not begin is listed by its overrides instead
DRAWN = ("init",)  # the studies that draw training curves: records of others have no history
SHOWN = 8  # of what a model wrote, so many test inputs, the first, are kept as they are
NEEDED = (
    "trainable_params", "train_seconds", "tokens_per_second", "peak_memory_bytes", "main_metric", "metrics",
)  # fmt: skip


@dataclass(frozen=True)
class Predictions:
    """What studies say of a run's predictions.jsonl, an entry a test input: prompt, references, output, perhaps group.

    inputs        how many entries there are; groups: how many of them each group has
    majority      the share of the commonest first reference
    prompt_words  the mean number of words in a prompt
    shown         the first SHOWN entries; None where a record was rebuilt without them
    """

    inputs: int
    groups: dict[str, int]
    majority: float
    prompt_words: float
    shown: list[dict[str, Any]] | None

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]]) -> Predictions:
        """Raises ValueError if there is no entry, or one has no prompt, references or output."""
        if not entries or not all(entry["references"] and {"prompt", "output"} <= entry.keys() for entry in entries):
            raise ValueError("an entry has no prompt, references or output")
        groups = Counter(str(entry["group"]) for entry in entries if "group" in entry)
        words = sum(len(entry["prompt"].split()) for entry in entries)
        return cls(
            len(entries),
            dict(sorted(groups.items())),
            majority(entry["references"][0] for entry in entries),
            words / len(entries),
            [dict(entry) for entry in entries[:SHOWN]],
        )


@dataclass(frozen=True)
class Record:
    """A run as a study lists it. What is None is not there.

    roles    of study (its own), tuning (of a learning-rate grid) and floor (a head alone, beside which rates are tried)
    config   config.yaml, keys in its order; metrics: metrics.json. A failed run has an error, no metrics, and a config
             if it got so far as to have one; diverged: it would do so again
    history  the columns of history.csv, as text, in a study of DRAWN
    items    items.json, what became of each test item; runs of before there was such a file have none
    rebuilt  for a record that was not packed from a run: `from`, what it was rebuilt from; `without`, what could not be
    """

    run_id: str
    roles: tuple[str, ...]
    config: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    error: str | None = None
    diverged: bool = False
    history: dict[str, list[str]] | None = None
    predictions: Predictions | None = None
    items: dict[str, Any] | None = None
    rebuilt: dict[str, Any] | None = None

    def line(self) -> str:
        """One line of JSON, which begins with the run_id: that of a damaged line can still be told."""
        fields = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, line: str) -> Record:
        """The record of a line. Raises ValueError, KeyError or TypeError if it is none."""
        fields = json.loads(line)
        predictions = fields.pop("predictions", None)
        roles = tuple(fields.pop("roles"))
        if not isinstance(fields["run_id"], str) or not all(isinstance(role, str) for role in roles):
            raise TypeError("run_id and roles are texts")
        return cls(roles=roles, predictions=predictions and Predictions(**predictions), **fields)

    def fault(self) -> str | None:
        """What is wrong with this record, if anything: its config is not that of its run_id, its metrics not whole."""
        if self.config is not None and HASHED.fullmatch(self.run_id) and identify(self.config) != self.run_id:
            return f"its config is that of run {identify(self.config)}"
        if self.error is not None:
            return None
        if self.config is None:
            return "it has no config"
        missing = [name for name in NEEDED if name not in (self.metrics or {})]
        if self.metrics is None or missing:
            return f"its metrics lack {', '.join(missing)}"
        rows = self.metrics["metrics"]
        if not all(
            {"split", "metric", "value"} <= row.keys() and isinstance(row["value"], float | int) for row in rows
        ):
            return "a line of its metrics is no split, metric and number"
        if ("test", self.metrics["main_metric"]) not in {(row["split"], row["metric"]) for row in rows}:
            return f"its metrics lack the {self.metrics['main_metric']} on test data"
        return item_files.fault(self.items) if self.items is not None else None
