"""Methods that hold less memory than full fine-tuning with AdamW: quality, memory, time, and the rank of the update."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.kit import measured, method_tables, naming, table_md, tables, tuning
from analysis.kit.tuning import CELL
from analysis.studies.memory_methods import figures as memory_methods_figures
from analysis.studies.memory_methods import ranks as memory_methods_ranks
from analysis.studies.memory_methods import report as memory_methods_report
from analysis.studies.spectrum.tables import described
from analysis.weights import update_runs
from experiments.records.source import Runs

BASE = True  # reads the pretrained weights
MEASURED = ("ranks.csv",)
MEMORY = "training_memory_bytes"


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Measures what ranks.csv (a row a run and matrix) lacks. Writes runs.csv, table.csv (a row a method and metric),
    table.md, memory.png, ranks.png and, if rates were tuned, learning_rates.csv. Returns their paths.

    base: as of `weights.update_runs.trained`. Raises InputError as that and `load` there, if an update is zero, or if
    a method has two runs of a seed or runs of different learning rates.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    test = tables.in_role(runs, "study")
    test = test[(test["split"] == "test") & (test["main"] | (test["metric"] == "loss"))]
    tuning.check(test[test["main"]], study_dir)
    updated = update_runs.load(study_dir, runs_dir)
    names = memory_methods_ranks.names(updated)
    test = test.assign(name=[names[key] for key in naming.keys(test)])
    test = test.merge(training_memory(Runs(study_dir, runs_dir)), on="run_id")
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    table = tabulate(test, rates)
    ranks = measure(updated, names, study_dir, runs_dir, base)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "ranks.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    text = memory_methods_report.report(table, ranks, rates, tables.head_rate(test), failures)
    table_md.write(outputs["table.md"], text, runs)
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    figures = [
        memory_methods_figures.draw_memory(test[test["main"]], table, study_dir / "memory.png"),
        memory_methods_figures.draw_ranks(ranks, study_dir / "ranks.png"),
    ]
    return [*outputs.values(), *figures]


def measure(
    runs: pd.DataFrame, names: Mapping[tuple[str, str], str], study_dir: Path, runs_dir: Path, base: str | None
) -> pd.DataFrame:
    """The rows of ranks.csv, complete, with what their runs are."""
    each = update_runs.of_each(runs)
    partners = memory_methods_ranks.partners(each)
    stored = measured.Rows(study_dir / MEASURED[0], ["run_id"], measured.ids(each["run_id"]))
    stale = memory_methods_ranks.stale(stored.frame, partners)
    stored.drop(stale)
    chosen = [run_id for (run_id,) in stored.missing]
    if chosen:
        with_lora = {*chosen, *(lora for run_id in chosen for lora in partners[run_id])}
        groups = update_runs.trained(runs, with_lora, study_dir, runs_dir, base)
        stored.add(memory_methods_ranks.measure(groups, partners, chosen))
    ranks = described(stored.frame, each, names)
    stored.write(ranks)  # methods may be called otherwise beside others
    return ranks


def training_memory(runs: Runs) -> pd.DataFrame:
    """run_id and MEMORY, what training took in bytes: NaN for runs that are older than its measurement."""
    found = {run.run_id: run.metrics.get(MEMORY) for run in runs}
    return pd.DataFrame({"run_id": list(found), MEMORY: pd.Series(list(found.values()), dtype=float)})


def tabulate(test: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """The rows of `kit.method_tables.tabulate` with name, the mean MEMORY of the runs that have it, and what the
    tuning of the learning rate came to."""
    table = method_tables.tabulate(test)
    table = table.merge(test.groupby(CELL).agg({"name": "first", MEMORY: "mean"}), on=CELL)
    if rates.empty:
        return table
    keys = [name for name in CELL if name != "metric"]  # a generated text is tuned by its loss
    return table.merge(tuning.outcomes(rates).drop(columns="metric"), on=keys, how="left")
