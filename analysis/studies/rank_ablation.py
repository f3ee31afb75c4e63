"""Quality against rank for several sets of weight types: the paper's Table 6."""

from pathlib import Path

import pandas as pd

from analysis.kit import answer, cells, grids, marks, pages, tables
from analysis.kit.data import Data
from analysis.kit.study import Study

LINE = ["model", "task", "weight_types"]
CELL = ["model", "task", "metric", "weight_types", "r"]
PAPER_MODEL = "GPT-3 175B"
READING = """\
Ours: {metrics} on the test split in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one
seed gives no interval. The paper's rows are the validation accuracy of its Table 6, {paper} on other tasks: compare how
quality moves with rank, not its level."""
CHOSEN = "Chosen on validation data from a grid, at one rank and one seed, for each task and set of weights."


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs by model and task: few weight types first, then by rank."""
    runs = tables.load_runs(study_dir, runs_dir).sort_values(["model", "task", "r", "lr", "seed"], ignore_index=True)
    runs["order"] = runs["weight_types"].str.count(r"\+")
    return runs.sort_values(["model", "task", "order", "weight_types"], kind="stable", ignore_index=True)


def paper() -> pd.DataFrame:
    """The paper's Table 6 as `cells.means` would give it, without n."""
    table = cells.paper("table06_rank").melt(["task", "weight_types"], var_name="r", value_name="mean")
    table = table.assign(r=table["r"].str.removeprefix("r").astype(int), mean=table["mean"].astype(float) / 100)
    return table.assign(model=PAPER_MODEL, metric="accuracy")


def table(data: Data) -> pd.DataFrame:
    """Table 6: a row for each source, model, task and set of weights, columns for each rank; the paper's below ours."""
    return cells.wide(cells.beside_paper(cells.means(data), paper()), ["source", *CELL[:-1]], "r")


def texts(data: Data) -> pd.DataFrame:
    """Table 6 as text."""
    rows = data["table.csv"]
    about = {"source": rows["source"] + ", " + rows["model"], "task": rows["task"], "weights": rows["weight_types"]}
    return pd.DataFrame(about | cells.wide_texts(rows, "r"))


STUDY = Study(
    runs=load,
    cell=CELL,
    tables={"table.csv": table, "learning_rates.csv": grids.grid(LINE)},
    answers=answer.ranks,
    page=[
        "# Rank ablation (the paper's Table 6)",
        pages.table(texts),
        pages.text(READING, metrics=pages.metrics, paper=PAPER_MODEL),
        pages.under("## Learning rates", grids.choices(LINE, CHOSEN)),
        pages.failed_runs,
    ],
    figures={"rank_ablation.png": marks.Lines(x="r", line="weight_types", label="rank r", legend="LoRA on")},
)
