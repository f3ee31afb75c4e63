"""What the methods of a study wrote for the same test inputs, to be read beside its numbers."""

import json
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import language_runs, naming
from analysis.kit.data import Data
from experiments.records.schema import SHOWN
from experiments.records.source import Runs
from lora.config import InputError

COLUMNS = [
    "model", "task", "example", "group", "input", "references", "label", "settings", "seed", "run_id", "output",
]  # fmt: skip
SHOWN_REFERENCES = 3
SHOWN_LENGTH = 800  # characters of a text in samples.md
READING = f"""\
The first inputs of the test split in their stored order, which is drawn before any training and is the same for every
method: no sample is picked by its result. Each method is shown at its first seed. Where methods have different inputs
(demonstrations before them), the shortest is shown. Texts are as they were scored but for line breaks, and are cut at
{SHOWN_LENGTH} characters, references after the first {SHOWN_REFERENCES}; samples.csv has everything."""
# What markdown would not show as it is. An underscore within a word, it does.
_MARKUP = re.compile(r"[\\`*<~]|(?<!\w)_|_(?!\w)|\](?=\()")


def write(final: pd.DataFrame, runs_dir: Path, study_dir: Path, count: int = SHOWN) -> list[Path]:
    """Writes samples.md and samples.csv (COLUMNS; references is a JSON list) into study_dir: the first `count` test
    inputs of every model and task, and what each method wrote for them at its first (lowest) seed. Returns their paths.

    final is the study's own runs, of `kit.tables.load_runs`: of its columns, run_id, model, task, label, settings
    and seed are read; the order of its rows is the order of the methods. A pair of label and settings is a method: a
    study that varies something else adds it to `settings` first. Raises InputError if a run has no readable
    predictions.jsonl, or if two runs of a task were tested on different inputs.
    """
    table = collect(final, runs_dir, study_dir, count)
    text, data = study_dir / "samples.md", study_dir / "samples.csv"
    text.write_text(report(table), encoding="utf-8")
    references = table["references"].map(lambda texts: json.dumps(texts, ensure_ascii=False))
    table.assign(references=references).to_csv(data, index=False)
    return [text, data]


def of(data: Data) -> list[Path]:
    """`write` of what a study's means are of."""
    return write(data.scores, data.runs_dir, data.folder)


def by(added: Callable[[pd.DataFrame], pd.Series]) -> Callable[[Data], list[Path]]:
    """`of` a study whose methods are told apart by what is `added` to their settings, a text for each of its runs."""

    def writes(data: Data) -> list[Path]:
        return write(language_runs.with_setting(data.scores, added(data.scores)), data.runs_dir, data.folder)

    return writes


def collect(final: pd.DataFrame, runs_dir: Path, study_dir: Path, count: int) -> pd.DataFrame:
    """A row for each model, task, example (from 1) and method: COLUMNS, references as a list. Raises InputError as
    `write`."""
    cell = ["model", "task", "label", "settings"]
    lowest = final.sort_values("seed", kind="stable").drop_duplicates(cell).index
    runs = final.loc[final.index.isin(lowest), [*cell, "seed", "run_id"]]
    stored = Runs(study_dir, runs_dir)
    rows: list[dict[Hashable, Any]] = []
    for _, group in runs.groupby(["model", "task"], sort=False):
        methods = group.to_dict("records")
        found = {run["run_id"]: stored[run["run_id"]].shown()[:count] for run in methods}
        _check(found, study_dir)
        for example, same in enumerate(zip(*found.values(), strict=True), start=1):
            shared: dict[Hashable, Any] = {
                "example": example,
                "group": same[0].get("group"),
                "input": min((prediction["prompt"] for prediction in same), key=len),
                "references": same[0]["references"],
            }
            rows += [run | shared | {"output": own["output"]} for run, own in zip(methods, same, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _check(found: Mapping[str, list[dict[str, Any]]], study_dir: Path) -> None:
    (first, expected), *others = found.items()
    for run_id, entries in others:
        if [entry["references"] for entry in entries] != [entry["references"] for entry in expected]:
            raise InputError(
                f"runs {first} and {run_id} of {study_dir / 'sweep.jsonl'} were tested on different inputs; give all "
                "runs of a task the same data, task.split_seed and task.test_examples"
            )


def report(table: pd.DataFrame) -> str:
    """samples.md, of the frame of `collect`: under each input its references, then each method's output."""
    lines = ["# Samples", "", READING]
    for (model, task, example), rows in table.groupby(["model", "task", "example"], sort=False):
        if example == 1:
            lines += ["", f"## {task} ({model})"]
        first = rows.iloc[0]
        group = f" ({first['group']})" if isinstance(first["group"], str) else ""
        lines += ["", f"### {example}{group}", "", *_quote(first["input"]), ""]
        lines += [f"- reference: {_shown(text)}" for text in first["references"][:SHOWN_REFERENCES]]
        left = len(first["references"]) - SHOWN_REFERENCES
        lines += [f"- … and {left} more reference{'s' if left > 1 else ''}"] if left > 0 else []
        lines += [
            f"- **{naming.title(row['label'], row['settings'])}** (seed {row['seed']}): {_shown(row['output'])}"
            for row in rows.to_dict("records")
        ]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> list[str]:
    lines = [_escaped(line.strip()) for line in _cut(text).splitlines() if line.strip()]
    return ["> " + "\\\n> ".join(lines)] if lines else [">"]


def _shown(text: str) -> str:
    return _escaped(" ".join(_cut(text).split())) or "*(nothing)*"


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\g<0>", text)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LENGTH else text[:SHOWN_LENGTH].rstrip() + " …"
