"""Methods that hold less memory than full fine-tuning with AdamW: quality, memory, time, and the rank of the update."""

from pathlib import Path

import pandas as pd

from analysis import (
    language_runs,
    memory_methods_figures,
    memory_methods_ranks,
    memory_methods_report,
    naming,
    tables,
    task_tables,
    tuning,
    update_runs,
)
from analysis.spectrum_tables import named
from analysis.tuning import CELL
from experiments.records.source import Runs

BASE = True  # reads the pretrained weights
MEMORY = "training_memory_bytes"


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Writes runs.csv, table.csv (a row a method and metric), ranks.csv (a row a run and matrix), table.md, memory.png,
    ranks.png and, if rates were tuned, learning_rates.csv. Returns their paths.

    base: as of `analysis.update_runs.load`. Raises InputError as that does, if an update is zero, or if a method has
    two runs of a seed or runs of different learning rates.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    test = tables.in_role(runs, "study")
    test = test[(test["split"] == "test") & (test["main"] | (test["metric"] == "loss"))]
    tuning.check(test[test["main"]], study_dir)
    updated, groups = update_runs.load(study_dir, runs_dir, base)
    names = memory_methods_ranks.names(updated)
    test = test.assign(name=[names[key] for key in naming.keys(test)])
    test = test.merge(training_memory(Runs(study_dir, runs_dir)), on="run_id")
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    table = tabulate(test, rates)
    ranks = named(memory_methods_ranks.measure(groups), names)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "ranks.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    ranks.to_csv(outputs["ranks.csv"], index=False, float_format="%.5g")
    failures = language_runs.failures(study_dir, failed)
    text = memory_methods_report.report(table, ranks, rates, tables.head_rate(test), failures)
    outputs["table.md"].write_text(text, encoding="utf-8")
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    figures = [
        memory_methods_figures.draw_memory(test[test["main"]], table, study_dir / "memory.png"),
        memory_methods_figures.draw_ranks(ranks, study_dir / "ranks.png"),
    ]
    return [*outputs.values(), *figures]


def training_memory(runs: Runs) -> pd.DataFrame:
    """run_id and MEMORY, what training took in bytes: NaN for runs that are older than its measurement."""
    found = {run.run_id: run.metrics.get(MEMORY) for run in runs}
    return pd.DataFrame({"run_id": list(found), MEMORY: pd.Series(list(found.values()), dtype=float)})


def tabulate(test: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """The rows of `analysis.task_tables.tabulate` with name, the mean MEMORY of the runs that have it, and what the
    tuning of the learning rate came to."""
    table = task_tables.tabulate(test)
    table = table.merge(test.groupby(CELL).agg({"name": "first", MEMORY: "mean"}), on=CELL)
    if rates.empty:
        return table
    keys = [name for name in CELL if name != "metric"]  # a generated text is tuned by its loss
    return table.merge(tuning.outcomes(rates).drop(columns="metric"), on=keys, how="left")
