"""LoRA on GLUE beside the paper's Table 2, model by model."""

from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.kit import naming, table_md, tables
from analysis.maths.statistics import mean_text
from lora.config import InputError

CELL = ["model", "task", "metric", "label", "settings"]
PAPER_MODELS = {"deberta-v2-xxlarge": "deberta-xxl"}  # others have the name that the paper's table has
READING = """\
Test scores in percent: mean ± half-width of the 95% Student-t interval (number of seeds; one gives no interval), and
the median over seeds. The paper's are medians over five seeds of the best epoch (Table 2, LoRA without restrictions);
ours are of the last epoch. {rates} MNLI's is the paper's too: accuracy_overall, of the matched and the mismatched set
together; accuracy alone is of the matched one, of runs that had no other."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv and table.md; returns their paths.

    Raises InputError if the runs are missing or damaged, or if a seed of a cell has two runs.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    final = tables.in_role(runs, "study")
    test = scored(final[final["split"] == "test"])
    if test.empty:
        raise InputError(f"{study_dir} has no finished run; `{tables.make_command(study_dir)}` trains them")
    tables.check_seeds(test, CELL, study_dir)
    table = tabulate(test)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, tables.load_failed(study_dir, runs_dir))
    table_md.write(outputs["table.md"], report(table, tables.head_rate(runs), failures), runs)
    return list(outputs.values())


def scored(test: pd.DataFrame) -> pd.DataFrame:
    """Of each run's test metrics the one that the paper has: the main one, of two test sets that of both together."""
    mains = test[test["main"]].drop_duplicates("run_id").set_index("run_id")["metric"]
    overall = test[test["metric"] == test["run_id"].map(mains) + "_overall"]
    return pd.concat([test[test["main"] & ~test["run_id"].isin(overall["run_id"])], overall]).sort_index()


def tabulate(test: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL: mean, interval, n, median (fractions), trainable_params, lr, and paper (percent)."""
    costs = {"trainable_params": "max", "lr": "first"}
    groups = test.groupby(CELL, sort=False)
    table = tables.summarise(test, CELL).merge(groups["value"].median().rename("median").reset_index(), on=CELL)
    table = table.merge(groups.agg(costs).reset_index(), on=CELL)
    return table.merge(paper_scores(), on=["model", "task", "label"], how="left")


def paper_scores() -> pd.DataFrame:
    """LoRA's scores in the paper's Table 2, in percent: model, task, label, paper; names are those of our configs."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table02_glue.csv")))
    table = table[(table["method"] == "lora") & (table["setup"] == "own")].rename(columns={"method": "label"})
    names = {paper: ours for ours, paper in PAPER_MODELS.items()}
    table["model"] = table["model"].replace(names)
    tasks = [name for name in table.columns if name not in ("model", "label", "setup", "trainable_params", "avg")]
    return table.melt(["model", "label"], tasks, var_name="task", value_name="paper")


def report(table: pd.DataFrame, head: str, failed: list[str]) -> str:
    """table.md: a table a model, how to read it, and the runs that failed."""
    lines = ["# LoRA on GLUE", "", READING.format(rates=head)]
    for model, rows in table.groupby("model", sort=False):
        parts = zip(rows["mean"], rows["interval"], rows["n"], strict=True)
        shown = pd.DataFrame(
            {
                "task": rows["task"],
                "metric": rows["metric"],
                "method": [naming.title(row.label, row.settings) for row in rows.itertuples()],
                "parameters": rows["trainable_params"].map("{:,}".format),
                "lr": rows["lr"].map("{:g}".format),
                "test": [mean_text(*part) for part in parts],
                "median": rows["median"].map(lambda value: f"{100 * value:.1f}"),
                "paper": rows["paper"].map("{:.1f}".format, na_action="ignore"),
            }
        )
        lines += ["", f"## {model}", "", tables.markdown(shown)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"
