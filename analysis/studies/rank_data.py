"""Do more training data need a larger rank? LoRA's ranks on few training examples and on many."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import cells, language_runs, marks, pages
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.study import Study
from analysis.maths import statistics
from lora.config import InputError

CELL = [*TASK, "r", "train_examples"]
READING = """\
{metrics} on the test split in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one seed
gives no interval. n: training examples, the first n of one order that is the same for all. Differences are in points,
paired by seed, ± half-width of their 95% interval; p is of the paired t-test, by Holm's method corrected for the
numbers of examples of a task, and `*` marks p < 0.05. alpha and the learning rate are the same for all ranks.
{head}"""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs by examples and rank. Raises InputError if one is not of LoRA with one rank."""
    runs = language_runs.load(study_dir, runs_dir)
    if pd.to_numeric(runs["r"], errors="coerce").isna().any():
        raise InputError(f"{study_dir / 'sweep.jsonl'} lists runs that have no rank r; rank_data is a study of LoRA")
    return runs.astype({"r": int}).sort_values(["model", "task", "train_examples", "r", "seed"], ignore_index=True)


def gains(data: Data) -> pd.DataFrame:
    """What the largest rank gains over the smallest at each number of examples: TASK, train_examples, smallest,
    largest, the fields of `statistics.Paired`, and p_holm."""
    rows = []
    for key, runs in data.scores.groupby([*TASK, "train_examples"], sort=False):
        small, large = runs["r"].min(), runs["r"].max()
        if small < large:
            ends = [runs[runs["r"] == r].set_index("seed")["value"] for r in (large, small)]
            rows.append((*key, small, large, *statistics.paired(*ends)))
    columns = [*TASK, "train_examples", "smallest", "largest", *statistics.Paired._fields]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=table.groupby(TASK, sort=False)["p"].transform(statistics.holm))


def texts(data: Data) -> pd.DataFrame:
    """A row a number of examples and a column a rank, and what rank gains."""
    keys = ["train_examples"]
    means, gained = data["table.csv"], data["gains.csv"]
    rows = means.drop_duplicates(keys)
    epochs = data.final.groupby(keys)["epochs"].max()
    columns: dict[str, Any] = {
        "n": rows["train_examples"].astype(str),
        "epochs": rows["train_examples"].map(epochs).astype(str),
    }
    columns |= cells.across(rows, means.sort_values("r", kind="stable"), "r", keys, head="r = {}")
    if len(gained):
        ends = f"r = {gained['largest'].max()} minus r = {gained['smallest'].min()}"
        columns[ends] = cells.looked_up(gained, [_gain(row) for _, row in gained.iterrows()], rows, keys)
    return pd.DataFrame(columns)


def _gain(row: pd.Series) -> str:
    text = statistics.difference_text(row["difference"], row["interval"], row["p_holm"])
    return f"{text} ({statistics.pairs_text(row['pairs'])})"


STUDY = Study(
    runs=load,
    columns=language_runs.DETAILS,
    cell=CELL,
    tables={"table.csv": cells.means, "gains.csv": gains},
    page=[
        "# Rank and the number of training examples",
        pages.text(READING, metrics=pages.metrics, head=pages.head_rate),
        pages.sections("## {task} ({model})", pages.table(texts)),
        pages.failed_runs,
    ],
    figures={"rank_data.png": marks.Lines(x="train_examples", line="r", label="training examples", legend="rank r")},
)
