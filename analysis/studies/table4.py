"""SQL, a classification and headlines from a language model, every method tuned on its own: the paper's Table 4."""

from pathlib import Path

import pandas as pd

from analysis.kit import language_runs, method_figures, naming, samples, table_md, tables, task_tables, tuning
from analysis.kit.cells import mean_texts
from analysis.kit.cells import paper as printed
from analysis.kit.compare import METHOD
from analysis.kit.method_tables import TASK, effort, findings
from analysis.kit.tuning import CELL

PAPER_MODEL = "GPT-3 175B"
# The paper's tasks, and ours beside each: the same, or the nearest that a small model can learn on a desk.
PAPER_TASKS = {
    "WikiSQL": ["wikisql_acc"],
    "MNLI-m": ["mnli_m_acc"],
    "SAMSum": ["samsum_rouge1", "samsum_rouge2", "samsum_rougeL"],
}
SAME = {"wikisql": "WikiSQL", "text_mnli": "MNLI-m", "samsum": "SAMSum"}
NEAREST = {"text2sql": "WikiSQL", "bbc_headlines": "SAMSum"}  # and any classification as text: MNLI-m
READING = f"""\
Scores are those of the test split in percent: mean ± half-width of the 95% Student-t interval (number of seeds); one
seed gives no interval and no test. Differences are of a task's first metric, to the method in the column's head, in
points, paired by seed, ± half-width of their own 95% interval; p is of the paired t-test, by Holm's method corrected
for all comparisons with that method on that task (the intervals are not), and `*` marks p < 0.05. Parameters are those
trained. Times and memory are those of the runs as they were made, not a benchmark. The paper's numbers are those of
its Table 4 with its numbers of parameters: {PAPER_MODEL}, on other tasks unless the heading says the same, and all
training data. They are context: compare the order of methods, not levels."""
TUNING = """\
Only the learning rate is tuned, for every method and task on its own, on validation data with the first seed: by the
first metric where the task is to choose, by the loss a token where text is written. The test data choose nothing.
Every method starts with as many rates; a grid grows where the best lies at its edge. The good region is the factor
from the lowest to the highest rate around the best that is at most 1 or 2 points (0.01 or 0.02 of loss) worse,
interpolated over log lr; ≥ says that it reaches the last rate tried. It is from one seed: a point may be noise."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a method and metric), table.md, table4.png, samples.md, samples.csv and, if
    rates were tuned, learning_rates.csv and .png.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a method has two runs of a seed or
    runs of different learning rates.
    """
    runs = language_runs.load(study_dir, runs_dir)
    scores = language_runs.final_scores(runs)
    main = scores[scores["main"]]
    tuning.check(main, study_dir)
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    table = task_tables.tabulate(scores)
    if not rates.empty:  # where text is written, the metric of a tuning is another: the loss
        keys = [name for name in CELL if name != "metric"]
        table = table.merge(tuning.outcomes(rates).drop(columns="metric"), on=keys, how="left")

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md", "table4.png")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    data = language_runs.tested(main, runs_dir, study_dir)
    warning = language_runs.caution(table["n"], list(data.values()))
    failures = language_runs.failures(study_dir, failed)
    table_md.write(outputs["table.md"], report(table, rates, warning, failures), runs)
    method_figures.draw_methods(main, table[table["main"]], outputs["table4.png"])
    if not rates.empty:
        outputs |= {name: study_dir / name for name in ("learning_rates.csv", "learning_rates.png")}
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
        method_figures.draw_rates(rates, outputs["learning_rates.png"])
    return [*outputs.values(), *samples.write(main, runs_dir, study_dir)]


def report(table: pd.DataFrame, rates: pd.DataFrame, warning: str, failures: list[str]) -> str:
    """table.md: all tasks side by side, what failed, then each task beside the paper's; `warning` says what so many
    seeds can tell."""
    untuned = "No learning rate was tuned in this study: every method ran at the rate given here."
    lines = ["# SQL, a classification and headlines, from a language model (the paper's Table 4)", "", READING, ""]
    lines += [warning, "", untuned if rates.empty else TUNING]
    lines += ["", "## All tasks", "", tables.markdown(overview(table))]
    if failures:
        lines += ["", "Not in the tables, because the runs failed:", "", *failures]
    for (model, task), cells in table.groupby(TASK[:2], sort=False):
        main = cells[cells["main"]]
        lines += ["", f"## {task} ({model}){_beside(str(task))}", "", *findings(main), ""]
        lines += [tables.markdown(quality(cells, str(task))), "", tables.markdown(effort(main))]
    return "\n".join(lines) + "\n"


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a metric of a task, as text; models are named where there are several."""
    keys = ["model", "label", "settings"]
    rows = naming.arranged(table.drop_duplicates(keys).assign(task="", seed=0))  # one order for all tasks
    columns = ({"model": rows["model"]} if rows["model"].nunique() > 1 else {}) | task_tables.names(rows)
    for (task, metric), cells in table.groupby(["task", "metric"], sort=False):
        columns[f"{task} {metric}"] = task_tables.looked_up(cells, mean_texts(cells), rows, keys)
    return pd.DataFrame(columns)


def quality(cells: pd.DataFrame, task: str) -> pd.DataFrame:
    """A task's table, as text: its metrics, the first one's differences, and the paper's numbers beside."""
    main = cells[cells["main"]]
    columns = task_tables.names(main)
    for metric, found in cells.groupby("metric", sort=False):
        columns[str(metric)] = task_tables.looked_up(found, mean_texts(found), main, METHOD)
    columns |= task_tables.minus_columns(main)
    theirs = paper_task(task)
    if theirs:
        columns[f"paper, {theirs}"] = task_tables.beside(main, paper_rows(theirs))
    return pd.DataFrame(columns)


def paper_task(task: str) -> str | None:
    """The task of the paper's Table 4 that one of ours is set beside; None if there is none like it."""
    return SAME.get(task) or NEAREST.get(task) or ("MNLI-m" if task.startswith("text_") else None)


def paper_rows(task: str) -> pd.DataFrame:
    """The paper's Table 4 for one of PAPER_TASKS: method and text, its numbers in percent and, in brackets, its
    parameters; smaller sizes of a method come first."""
    rows = printed("table04_gpt3")
    numbers = rows[PAPER_TASKS[task]].apply(lambda row: " / ".join(map("{:.1f}".format, row)), axis=1)
    return pd.DataFrame({"method": rows["method"], "text": numbers + " (" + rows["trainable_params"] + ")"})


def _beside(task: str) -> str:
    theirs = paper_task(task)
    if theirs is None:
        return ""
    named = f"{theirs} (ROUGE-1 / 2 / L)" if theirs == "SAMSum" else theirs
    return f", beside the paper's {named}{'' if task in SAME else ': another task'}"
