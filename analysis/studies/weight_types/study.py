"""Quality of sets of weight types under a budget of parameters: the paper's Table 5, and the feed-forward layers."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import answer, naming, table_md, tables, tuning
from analysis.kit.method_tables import METHOD
from analysis.studies.weight_types import figure as weight_figure
from analysis.studies.weight_types import report as weight_report
from analysis.studies.weight_types import sets as weight_sets
from analysis.studies.weight_types.sets import CELL

PAPER_MODEL = "GPT-3 175B"
PAPER_TASKS = {"wikisql_acc": "WikiSQL", "mnli_acc": "MNLI-m"}


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, differences.csv, table.md, weight_types.png and, if rates were tuned,
    learning_rates.csv.

    In runs.csv `budget` is the number of parameters that a run stands for, and `lora_params` what it has. Returns the
    paths. Raises InputError if the runs are missing or damaged, if one is not of LoRA on weight types, or if a set has
    two runs of a seed, or runs of different learning rates, for one budget.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    runs = weight_sets.with_budgets(weight_sets.with_parameters(runs, runs_dir, study_dir))
    final = tables.in_role(runs, "study")
    test = final[final["main"] & (final["split"] == "test")]
    tuning.check(test, study_dir)
    tables.check_seeds(test, CELL, study_dir)
    table, differences, paper = weight_sets.tabulate(test), weight_sets.differences(test), paper_table()
    failed = tables.load_failed(study_dir, runs_dir)
    sets = runs[[*METHOD, "weight_types"]].drop_duplicates()
    rates = tuning.rates(runs, failed).merge(sets, on=METHOD, how="left")

    names = ("runs.csv", "table.csv", "differences.csv", "table.md", "weight_types.png")
    outputs = {name: study_dir / name for name in names}
    runs[[*tables.RUNS_COLUMNS, "budget", "lora_params"]].to_csv(outputs["runs.csv"], index=False)
    both = pd.concat([table.assign(source="ours"), paper.assign(source="paper")], ignore_index=True)
    both.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    differences.to_csv(outputs["differences.csv"], index=False, float_format="%.6g")
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    text = weight_report.report(table, differences, paper, rates, heads(test), failures)
    table_md.write(outputs["table.md"], text, runs, answer.weight_types(runs, weight_sets.order))
    weight_figure.draw(table, test, outputs["weight_types.png"])
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    return list(outputs.values())


def heads(test: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """By model and task the sentence on the head's learning rate, where the head has one of its own."""
    places = test[test["head_lr"].notna()].groupby(["model", "task"], sort=False)
    return {key: tables.head_rate(runs) for key, runs in places}


def paper_table() -> pd.DataFrame:
    """The paper's Table 5 in the columns of `weight_sets.tabulate`: values are fractions, without n."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table05_weight_types.csv"))).rename(columns=PAPER_TASKS)
    millions = table["trainable_params"].str.removesuffix("M").astype(int)
    table = table.assign(model=PAPER_MODEL, metric="accuracy", budget=millions * 10**6)
    keys = ["model", "metric", "budget", "weight_types", "r"]
    table = table.melt(keys, list(PAPER_TASKS.values()), var_name="task", value_name="mean")
    return table.assign(mean=table["mean"] / 100)
