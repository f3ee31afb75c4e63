"""LoRA beside its rivals, each with its own tuned learning rate: the question of the paper's Tables 2 to 4."""

import functools

import pandas as pd

from analysis.kit import answer, cells, compare, method_figures, method_tables, pages, tables, tuning
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.kit.tuning import CELL

COSTS = ["train_seconds", "tokens_per_second", "peak_memory_bytes"]
PAPER = "roberta-base"
READING = f"""\
Quality is the test score in percent: mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives
no interval and no test. Differences are to the method in the column's head, in points, paired by seed, ± half-width of
their own 95% interval; p is of the paired t-test, by Holm's method corrected for all comparisons with that method on
that task (the intervals are not), and `*` marks p < 0.05. Parameters are those trained; without the head: less what
head_only trains. Times and memory are those of the runs as they were made, not a benchmark. The paper's column is from
its Table 2, {PAPER}, with its numbers of parameters: the same task if it is one of GLUE, else the average over GLUE.
It is another model, tuned in another way, on all training data: compare the order of methods, not levels."""


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL: quality, parameters, costs, the tuning, and the comparisons <reference>_<field>."""
    test, costs = data.scores, dict.fromkeys(COSTS, "mean")
    about = {"trainable_params": "max", "without_head": "max"} | costs | {"lr": "first"}
    sizes = test.assign(without_head=tables.without_head(test)).groupby(CELL).agg(about)
    found = cells.means(data).merge(sizes, on=CELL)
    if not data.rates.empty:
        found = found.merge(tuning.outcomes(data.rates), on=CELL, how="left")
    found = compare.with_differences(found, test, pages.TASK)
    numbers = [paper_number(task, label) for task, label in zip(found["task"], found["label"], strict=True)]
    return found.assign(paper_task=found["task"].map(paper_task), paper=pd.Series(numbers, found.index, dtype=object))


def quality(data: Data) -> pd.DataFrame:
    """The first table of a task, as text: quality, parameters, differences, the paper's number."""
    rows = data["table.csv"]
    columns = method_tables.names(rows)
    columns["without head"] = rows["without_head"].astype(object).map("{:,.0f}".format, na_action="ignore")
    columns |= {"test": cells.mean_texts(rows)} | method_tables.minus_columns(rows)
    beside = rows["paper_task"].iloc[0].replace("avg", "GLUE average")
    return pd.DataFrame(columns | {f"paper, {beside}": rows["paper"]})


def paper_task(task: str) -> str:
    """The column of the paper's Table 2 that a task is set beside: its own, if it is of GLUE, else the average."""
    name = task.removeprefix("glue/")
    return name if name in paper().columns else "avg"


def paper_number(task: str, label: str) -> str | None:
    """The paper's number for a method beside a task, in percent, with its trainable parameters; None if it has none."""
    rows = paper()
    rows = rows[rows["method"] == label]
    numbers = zip(rows[paper_task(task)], rows["trainable_params"], strict=True)
    return ", ".join(f"{number:.1f} ({size})" for number, size in numbers) or None


@functools.cache
def paper() -> pd.DataFrame:
    """The rows of the paper's Table 2 for RoBERTa-base."""
    table = cells.paper("table02_glue")
    return table[table["model"] == PAPER]


STUDY = Study(
    cell=CELL,
    one_rate=True,
    tables={"table.csv": table, "learning_rates.csv": tuning.tried},
    answers=answer.methods,
    page=[
        "# LoRA and its rivals",
        READING,
        pages.lines(method_tables.tuned, pages.head_rate),
        pages.sections(
            "## {task} ({model}, test {metric})",
            lambda data: method_tables.findings(data["table.csv"]),
            pages.table(quality),
            pages.table(lambda data: method_tables.effort(data["table.csv"])),
        ),
        method_tables.pending,
        pages.failed_runs,
    ],
    figures={
        "compare_methods.png": method_figures.Methods(of=lambda data: data["table.csv"]),
        "learning_rates.png": method_figures.rates,
    },
)
