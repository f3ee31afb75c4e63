"""Quality of sets of weight types under a budget of parameters: the paper's Table 5, and the feed-forward layers."""

import textwrap
from pathlib import Path

import pandas as pd

from analysis.kit import answer, cells, marks, pages
from analysis.kit.compare import METHOD
from analysis.kit.data import Data
from analysis.kit.study import Study, arranged
from analysis.studies.weight_types import report, sets

PAPER_MODEL = "GPT-3 175B"
PAPER_TASKS = {"wikisql_acc": "WikiSQL", "mnli_acc": "MNLI-m"}


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs with `budget`, the number of parameters that a run stands for, and `lora_params`, what it has."""
    runs = sets.with_parameters(arranged(study_dir, runs_dir), runs_dir, study_dir)
    return sets.with_budgets(runs)


def paper() -> pd.DataFrame:
    """The paper's Table 5 in the columns of `sets.tabulate`: values are fractions, without n."""
    table = cells.paper("table05_weight_types").rename(columns=PAPER_TASKS)
    millions = table["trainable_params"].str.removesuffix("M").astype(int)
    table = table.assign(model=PAPER_MODEL, metric="accuracy", budget=millions * 10**6)
    keys = ["model", "metric", "budget", "weight_types", "r"]
    table = table.melt(keys, list(PAPER_TASKS.values()), var_name="task", value_name="mean")
    return table.assign(mean=table["mean"] / 100)


def table(data: Data) -> pd.DataFrame:
    """Ours, of `sets.tabulate`, and the paper's below."""
    return cells.beside_paper(sets.tabulate(data.scores), paper())


def ours(data: Data) -> pd.DataFrame:
    """Our rows of the table."""
    return sets.tabulate(data.scores)


def drawn(data: Data) -> pd.DataFrame:
    """Our rows of the metrics by which sets are compared."""
    return sets.compared(ours(data))


def rates(data: Data) -> pd.DataFrame | None:
    """The rates that were tried for each set; None where none was tuned."""
    names = data.runs[[*METHOD, "weight_types"]].drop_duplicates()
    return None if data.rates.empty else data.rates.merge(names, on=METHOD, how="left")


def tick(weight_types: str) -> str:
    """The name of a set in lines that are no wider than q+k+v+o."""
    return textwrap.fill(weight_types.replace("+", " +"), 10).replace(" +", "+")


STUDY = Study(
    runs=load,
    columns=["budget", "lora_params"],
    cell=sets.CELL,
    scores=sets.scored,
    one_rate=True,
    tables={
        "table.csv": table,
        "differences.csv": lambda data: sets.differences(data.scores),
        "learning_rates.csv": rates,
    },
    answers=lambda runs: answer.weight_types(runs, sets.order),
    page=[
        "# Weight types under a budget of parameters (the paper's Table 5)",
        *report.page(ours, paper()),
        pages.failed_runs,
    ],
    figures={
        "weight_types.png": marks.Dots(
            x="weight_types", side="budget", label="LoRA on", legend="parameters", order=sets.order, tick=tick,
            divide=sets.is_attention, of=drawn,
        )
    },
)  # fmt: skip
