"""LoRA beside its rivals, each with its own tuned learning rate: the question of the paper's Tables 2 to 4."""

import functools
from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.kit import answer, method_figures, naming, table_md, tables, tuning
from analysis.kit.method_tables import METHOD, PAPER, REFERENCES, TASK, reference, report
from analysis.kit.tuning import CELL
from analysis.maths import statistics

COSTS = ["train_seconds", "tokens_per_second", "peak_memory_bytes"]


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, table.md, compare_methods.png and, if rates were tuned, learning_rates.csv and .png.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a method has two runs of a seed or
    runs of different learning rates.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    final = tables.in_role(runs, "study")
    test = final[final["main"] & (final["split"] == "test")]
    tuning.check(test, study_dir)
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    table = tabulate(test, rates)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md", "compare_methods.png")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    text = report(table, rates, tables.head_rate(runs), failures)
    table_md.write(outputs["table.md"], text, runs, answer.methods(runs))
    method_figures.draw_methods(test, table, outputs["compare_methods.png"])
    if not rates.empty:
        outputs |= {name: study_dir / name for name in ("learning_rates.csv", "learning_rates.png")}
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
        method_figures.draw_rates(rates, outputs["learning_rates.png"])
    return list(outputs.values())


def tabulate(test: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL: quality, parameters, costs, the tuning, and the comparisons <reference>_<field>."""
    table = tables.summarise(test, CELL)
    costs = {"trainable_params": "max", "without_head": "max"} | dict.fromkeys(COSTS, "mean") | {"lr": "first"}
    table = table.merge(test.assign(without_head=tables.without_head(test)).groupby(CELL).agg(costs), on=CELL)
    if not rates.empty:
        table = table.merge(tuning.outcomes(rates), on=CELL, how="left")
    for name in REFERENCES:
        parts = [
            pd.DataFrame([key] * len(found), columns=TASK).join(found)
            for key, runs in test.groupby(TASK, sort=False)
            if (base := reference(table[(table[TASK] == list(key)).all(axis=1)], name))
            for found in [statistics.against(runs, METHOD, base)]
        ]
        if parts:
            found = pd.concat(parts).set_index([*TASK, *METHOD]).add_prefix(f"{name}_").reset_index()
            table = table.merge(found, on=CELL, how="left")
    paper = [paper_number(task, label) for task, label in zip(table["task"], table["label"], strict=True)]
    return table.assign(paper_task=table["task"].map(paper_task), paper=pd.Series(paper, table.index, dtype=object))


def paper_task(task: str) -> str:
    """The column of the paper's Table 2 that a task is set beside: its own, if it is of GLUE, else the average."""
    name = task.removeprefix("glue/")
    return name if name in paper_table().columns else "avg"


def paper_number(task: str, label: str) -> str | None:
    """The paper's number for a method beside a task, in percent, with its trainable parameters; None if it has none."""
    rows = paper_table()
    rows = rows[rows["method"] == label]
    numbers = zip(rows[paper_task(task)], rows["trainable_params"], strict=True)
    return ", ".join(f"{number:.1f} ({size})" for number, size in numbers) or None


@functools.cache
def paper_table() -> pd.DataFrame:
    """The rows of the paper's Table 2 for RoBERTa-base."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table02_glue.csv")))
    return table[table["model"] == PAPER]
