"""SQL, a classification and headlines from a language model, every method tuned on its own: the paper's Table 4."""

import pandas as pd

from analysis.kit import cells, language_runs, method_figures, method_tables, naming, pages, samples, tuning
from analysis.kit.compare import METHOD
from analysis.kit.data import Data
from analysis.kit.study import Study

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
Scores are those of the test split, the loss in nats a token (lower is better), all others in percent: mean ± half-width
of the 95% Student-t interval (number of seeds); one seed gives no interval and no test. Methods are compared by the
test loss, which scatters least between seeds: differences are to the method in the column's head, paired by seed, ±
half-width of their own 95% interval; p is of the paired t-test, by Holm's method corrected for all comparisons with
that method on that task (the intervals are not), and `*` marks p < 0.05. Parameters are those trained. Times and memory
are those of the runs as they were made, not a benchmark. The paper's numbers are those of its Table 4 with its numbers
of parameters: {PAPER_MODEL}, on other tasks unless the heading says the same, and all training data. They are context:
compare the order of methods, not levels."""
TUNING = """\
Only the learning rate is tuned, for every method and task on its own, on validation data with the first seed: by the
first metric where the task is to choose, by the loss a token where text is written. The test data choose nothing.
Every method starts with as many rates; a grid grows where the best lies at its edge. The good region is the factor
from the lowest to the highest rate around the best that is at most 1 or 2 points (0.01 or 0.02 of loss) worse,
interpolated over log lr; ≥ says that it reaches the last rate tried. It is from one seed: a point may be noise."""


def table(data: Data) -> pd.DataFrame:
    """A row for each method and metric, the test loss first: the columns of `kit.method_tables.tabulate`, and the
    tuning."""
    found = method_tables.tabulate(language_runs.scored(data.final, every=True))
    if data.rates.empty:
        return found
    outcomes = tuning.outcomes(data.rates).drop(columns="metric")  # where text is written, rates are chosen by the loss
    return found.merge(outcomes, on=["model", "task", *METHOD], how="left")


def losses(data: Data) -> pd.DataFrame:
    """The rows of the test loss."""
    return data["table.csv"].query("metric == 'loss'")


def drawn(data: Data) -> pd.DataFrame:
    """The rows of the test loss and of the first metrics."""
    return data["table.csv"].query("metric == 'loss' or main")


def overview(data: Data) -> pd.DataFrame:
    """A row a method, a column a metric of a task, as text; models are named where there are several."""
    found, keys = data["table.csv"], ["model", *METHOD]
    rows = naming.arranged(found.drop_duplicates(keys).assign(task="", seed=0))  # one order for all tasks
    about = {"model": rows["model"]} if rows["model"].nunique() > 1 else {}
    scores = cells.across(rows, found, ["task", "metric"], keys, head=_head)
    return pd.DataFrame(about | method_tables.names(rows) | scores)


def quality(data: Data) -> pd.DataFrame:
    """A task's table, as text: its metrics, the differences of the test loss, and the paper's numbers beside."""
    rows = losses(data)
    columns = method_tables.names(rows) | cells.across(rows, data["table.csv"], "metric", METHOD, head=_named)
    columns |= method_tables.minus_columns(rows)
    theirs = paper_task(rows["task"].iloc[0])
    return pd.DataFrame(columns | ({f"paper, {theirs}": beside(rows, paper_rows(theirs))} if theirs else {}))


def _head(key: tuple[str, str]) -> str:
    return f"{key[0]} {_named(key[1])}"


def _named(metric: str) -> str:
    return "loss ↓" if metric == "loss" else metric


def beside(rows: pd.DataFrame, theirs: pd.DataFrame) -> list[str | None]:
    """The paper's number for each of our methods, None where it has none. theirs has the columns method and text.

    Where the paper has as many sizes of a method as we, smallest is beside smallest; else all of them are given.
    """
    texts: dict[int, str | None] = {}
    for label, ours in rows.groupby("label", sort=False):
        known = theirs.loc[theirs["method"] == label, "text"].tolist()
        ordered = ours.sort_values("trainable_params", kind="stable").index
        texts |= zip(
            ordered, known if len(known) == len(ordered) else [", ".join(known) or None] * len(ordered), strict=True
        )
    return [texts[index] for index in rows.index]


def paper_task(task: str) -> str | None:
    """The task of the paper's Table 4 that one of ours is set beside; None if there is none like it."""
    return SAME.get(task) or NEAREST.get(task) or ("MNLI-m" if task.startswith("text_") else None)


def paper_rows(task: str) -> pd.DataFrame:
    """The paper's Table 4 for one of PAPER_TASKS: method and text, its numbers in percent and, in brackets, its
    parameters; smaller sizes of a method come first."""
    rows = cells.paper("table04_gpt3")
    numbers = rows[PAPER_TASKS[task]].apply(lambda row: " / ".join(map("{:.1f}".format, row)), axis=1)
    return pd.DataFrame({"method": rows["method"], "text": numbers + " (" + rows["trainable_params"] + ")"})


def paper_line(data: Data) -> str:
    """A list item: what of the paper a task is beside."""
    task = str(data.place["task"])
    theirs = paper_task(task)
    named = f"{theirs} (ROUGE-1 / 2 / L)" if theirs == "SAMSum" else theirs
    return f"- Beside the paper's {named}{'' if task in SAME else ': another task'}." if theirs else ""


STUDY = Study(
    runs=language_runs.load,
    cell=tuning.CELL,
    one_rate=True,
    tables={"table.csv": table, "learning_rates.csv": tuning.tried},
    page=[
        "# SQL, a classification and headlines, from a language model (the paper's Table 4)",
        READING,
        language_runs.warning(losses, others=1),
        lambda data: method_tables.UNTUNED if data.rates.empty else TUNING,
        "## All tasks",
        pages.table(overview),
        pages.sections(
            "## {task} ({model})",
            pages.lines(paper_line, lambda data: method_tables.findings(losses(data))),
            pages.table(quality),
            pages.table(lambda data: method_tables.effort(losses(data))),
            by=["model", "task"],
        ),
        pages.failed_runs,
    ],
    figures={
        "table4.png": method_figures.Methods(drawn, lambda data: language_runs.scored(data.final)),
        "learning_rates.png": method_figures.rates,
    },
    more=[samples.of],
)
