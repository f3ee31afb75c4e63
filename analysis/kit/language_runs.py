"""What studies of language models read of stored runs beside the tidy table: sizes of data, demonstrations, floors."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import naming, pages, tables
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.sentences import caution
from experiments import sample_size
from experiments.records.schema import Predictions
from experiments.records.source import Run, Runs

COMMONEST = "always the commonest answer"


def _has_all(run: Run) -> bool:
    asked = run.config["task"].get("train_examples")
    return asked is None or asked > int(run.metrics["train_examples"])


_DETAILS: dict[str, Callable[[Run], Any]] = {
    "train_examples": lambda run: int(run.metrics["train_examples"]),
    "all_examples": _has_all,
    "epochs": lambda run: int(run.config["training"]["epochs"]),
    "shots": lambda run: run.config["task"].get("shots") or 0,
}
DETAILS = list(_DETAILS)


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The frame of `kit.tables.load_runs`, arranged, with DETAILS.

    train_examples: how many a run was given, all_examples: there were no more, epochs, and shots: demonstrations in the
    prompt (0 where a task knows none). Raises InputError as `load_runs`.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    return tables.with_details(runs, study_dir, runs_dir, _DETAILS)


def scored(final: pd.DataFrame, every: bool = False) -> pd.DataFrame:
    """The test scores, those of a task together: its test loss, by which language models are compared, then its main
    metric, or, with `every`, all metrics."""
    test = final[final["split"] == "test"]
    loss = test["metric"] == "loss"
    rows = test.assign(place=test.groupby(TASK[:2], sort=False).ngroup(), other=~loss)[loss | test["main"] | every]
    return rows.sort_values(["place", "other"], kind="stable").drop(columns=["place", "other"])


def with_setting(runs: pd.DataFrame, added: pd.Series) -> pd.DataFrame:
    """runs with `added` (a text a row, `n=100`) after the settings: methods that differ in it alone become two."""
    pairs = zip(runs["settings"], added, strict=True)
    return runs.assign(settings=[", ".join(filter(None, pair)) for pair in pairs])


def line_names(table: pd.DataFrame) -> pd.Series:
    """A method's name in a figure: its label, and its settings where the label has several."""
    several = table.groupby("label")["settings"].transform("nunique") > 1
    names = zip(table["label"], table["settings"].where(several, ""), strict=True)
    return pd.Series([naming.title(*name) for name in names], table.index)


def tested(data: Data) -> list[Predictions]:
    """What each model was tested on in each task. Raises InputError if a run has no readable predictions."""
    stored = Runs(data.folder, data.runs_dir)
    first = data.scores.drop_duplicates(["model", "task"])["run_id"]
    return [stored[run_id].predictions for run_id in first]


def inputs(data: Data) -> str:
    """A list item on the test inputs of a task, and on how many each group has."""
    split = data.once(tested)[0]
    groups = ", ".join(f"{count} {group}" for group, count in split.groups.items())
    return f"- {split.inputs} test inputs{f' ({groups})' if groups else ''}."


def floor(data: Data) -> dict[str, float]:
    """What an answer that is always the same reaches in a task, by its name; nothing where the score is no share of
    right choices."""
    chosen = data.scores["metric"].iloc[0] == "accuracy"
    return {COMMONEST: data.once(tested)[0].majority} if chosen else {}


def floor_line(data: Data) -> list[str]:
    """A list item on the floor of a task, if it has one."""
    return [f"- {name.capitalize()}: {100 * share:.1f}." for name, share in floor(data).items()]


def warning(rows: Callable[[Data], pd.DataFrame], by: Sequence[str] = TASK, others: int = 0) -> pages.Block:
    """A block: what the seeds of a study and its test inputs can say, and what they cannot. rows: are compared with one
    another, those of one group of `by` but `others`."""

    def block(data: Data) -> str:
        found = rows(data)
        compared = int(found.groupby(list(by)).size().max()) - others if len(found) else 0
        seeds = data.scores.groupby(list(data.study.cell))["seed"].nunique()
        sizes = sorted({split.inputs for split in data.once(tested)})
        errors = " or ".join(f"{100 * sample_size.standard_error(size):.1f}" for size in sizes)
        text = (
            f"{caution(seeds, compared)} On other inputs than the {' or '.join(map(str, sizes))} of its test split a "
            f"task's scores would differ, by a standard error of up to {errors} points."
        )
        return textwrap.fill(text, 119)

    return block
