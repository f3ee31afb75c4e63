"""LoRA on GLUE beside the paper's Table 2, model by model."""

import pandas as pd

from analysis.kit import cells, naming, pages
from analysis.kit.data import Data
from analysis.kit.study import Study

CELL = ["model", "task", "metric", "label", "settings"]
PAPER_MODELS = {"deberta-xxl": "deberta-v2-xxlarge"}  # others have the name that the paper's table has
READING = """\
Test scores in percent: mean ± half-width of the 95% Student-t interval (number of seeds; one gives no interval), and
the median over seeds. The paper's are medians over five seeds of the best epoch (Table 2, LoRA without restrictions);
ours are of the last epoch. {rates} MNLI's is the paper's too: accuracy_overall, of the matched and the mismatched set
together; accuracy alone is of the matched one, of runs that had no other."""


def scored(test: pd.DataFrame) -> pd.DataFrame:
    """Of each run's test metrics the one that the paper has: the main one, of two test sets that of both together."""
    mains = test[test["main"]].drop_duplicates("run_id").set_index("run_id")["metric"]
    overall = test[test["metric"] == test["run_id"].map(mains) + "_overall"]
    return pd.concat([test[test["main"] & ~test["run_id"].isin(overall["run_id"])], overall]).sort_index()


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL: mean, interval, n, median (fractions), trainable_params, lr, and paper (percent)."""
    groups = data.scores.groupby(CELL, sort=False)
    found = cells.means(data).merge(groups["value"].median().rename("median").reset_index(), on=CELL)
    found = found.merge(groups.agg({"trainable_params": "max", "lr": "first"}).reset_index(), on=CELL)
    return found.merge(paper(), on=["model", "task", "label"], how="left")


def paper() -> pd.DataFrame:
    """LoRA's scores in the paper's Table 2, in percent: model, task, label, paper; names are those of our configs."""
    rows = cells.paper("table02_glue")
    rows = rows[(rows["method"] == "lora") & (rows["setup"] == "own")].rename(columns={"method": "label"})
    rows["model"] = rows["model"].replace(PAPER_MODELS)
    tasks = [name for name in rows.columns if name not in ("model", "label", "setup", "trainable_params", "avg")]
    return rows.melt(["model", "label"], tasks, var_name="task", value_name="paper")


def texts(data: Data) -> pd.DataFrame:
    """The table of a model as text."""
    rows = data["table.csv"]
    return pd.DataFrame(
        {
            "task": rows["task"],
            "metric": rows["metric"],
            "method": [naming.title(*key) for key in naming.keys(rows)],
            "parameters": rows["trainable_params"].map("{:,}".format),
            "lr": rows["lr"].map("{:g}".format),
            "test": cells.mean_texts(rows),
            "median": rows["median"].map(lambda value: f"{100 * value:.1f}"),
            "paper": rows["paper"].map("{:.1f}".format, na_action="ignore"),
        }
    )


STUDY = Study(
    scores=lambda final: scored(final[final["split"] == "test"]),
    cell=CELL,
    tables={"table.csv": table},
    page=[
        "# LoRA on GLUE",
        pages.text(READING, rates=pages.head_rate),
        pages.sections("## {model}", pages.table(texts), by=["model"]),
        pages.failed_runs,
    ],
)
