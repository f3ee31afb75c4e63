"""What desk scale is short of: how the gap to full fine-tuning, the best rate and phi(1,1) move with training steps."""

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import cells, marks, naming, pages, tables
from analysis.kit.data import Data
from analysis.kit.measured import Rows
from analysis.kit.pages import TASK
from analysis.kit.study import Study, arranged
from analysis.maths import statistics
from experiments.records.source import Run

CELL = [*TASK, "label", "settings", "steps"]
PHI = ["weight_type", "phi", "chance", "run_id", "other_run_id"]
SIDE = "A"  # as the paper's figures: the directions of the input
READING = """\
Test {metrics} in percent, mean ± half-width of the 95% Student-t interval (number of seeds). The gap is LoRA minus full
fine-tuning, paired by seed, with its own interval. Each method has a learning rate of its own at each number of steps.
phi(1,1): the share of LoRA's first direction (of A) that two seeds have in common, its mean over layers and pairs of
seeds; two random directions share one in as many as the input is wide (chance)."""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs by their number of steps."""
    runs = tables.with_details(arranged(study_dir, runs_dir), study_dir, runs_dir, {"steps": _steps})
    return runs.sort_values("steps", kind="stable", ignore_index=True)


def _steps(run: Run) -> int:
    training, examples = run.config["training"], int(run.metrics["train_examples"])
    return int(training["epochs"]) * math.ceil(examples / int(training["batch_size"]))


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL: mean, interval, n and lr."""
    rates = data.scores.groupby(CELL, sort=False)["lr"].first().reset_index()
    return cells.means(data).merge(rates, on=CELL)


def gaps(data: Data) -> pd.DataFrame:
    """LoRA minus full fine-tuning at each number of steps: TASK, steps, and the fields of `statistics.Paired`."""

    def gap(own: pd.DataFrame) -> dict[str, Any] | None:
        ours, theirs = (own[own["label"] == label].set_index("seed")["value"] for label in ("lora", "full"))
        return statistics.paired(ours, theirs)._asdict() if len(ours) and len(theirs) else None

    found = cells.each(data.scores, [*TASK, "steps"], gap)
    return found if len(found) else pd.DataFrame(columns=[*TASK, "steps", *statistics.Paired._fields])


def measured(data: Data) -> pd.DataFrame:
    """phi(1,1) of every two seeds of LoRA at one number of steps: PHI, a mean over layers, TASK, and steps. What
    phi.csv has is not measured again."""
    lora = data.scores[data.scores["label"] == "lora"]
    groups = lora.groupby([*TASK, "settings", "steps"], sort=False)["run_id"]
    pairs = [pair for _, group in groups for pair in itertools.combinations(sorted(group), 2)]
    rows = Rows(data.folder / "phi.csv", ["run_id", "other_run_id"], pairs)
    for pair in rows.missing:
        from analysis.weights.sides import compare  # with torch, which tables and figures do without

        found = pd.DataFrame(
            [
                {"weight_type": site.weight_type, "phi": grid[0, 0], "chance": 1 / dim}
                for (side, site), (grid, dim) in compare((pair[0], pair[1]), data.folder, data.runs_dir).items()
                if side == SIDE
            ]
        )
        means = found.groupby("weight_type", sort=False).mean().reset_index()
        rows.add(means.assign(run_id=pair[0], other_run_id=pair[1]))
    if rows.frame.empty:
        rows.write(pd.DataFrame(columns=PHI))
        return pd.DataFrame(columns=[*PHI, *TASK, "steps"])
    return rows.frame.merge(lora[["run_id", *TASK, "steps"]], on="run_id")


def texts(data: Data) -> pd.DataFrame:
    """A row a number of steps: each method with its rate, the gap, and phi(1,1)."""
    rows, at = data["table.csv"], {}
    for (label, settings), own in rows.groupby(["label", "settings"], sort=False):
        at[naming.title(label, settings)] = dict(zip(own["steps"], cells.mean_texts(own), strict=True))
        at[f"rate of {label}"] = dict(zip(own["steps"], own["lr"].map("{:g}".format), strict=True))
    found = data["gaps.csv"]
    at["lora minus full"] = {
        row["steps"]: f"{statistics.difference_text(row['difference'], row['interval'], row['p'])} "
        f"({row['pairs']:.0f} pairs)"
        for row in found.to_dict("records")
    }
    for weight_type, own in data["phi.csv"].groupby("weight_type", sort=False):
        head = f"phi(1,1) of {weight_type}, chance {own['chance'].iloc[0]:.3f}"
        shared = own.groupby("steps")["phi"]
        at[head] = {steps: f"{values.mean():.3f} ({len(values)} pairs)" for steps, values in shared}
    steps = sorted(rows["steps"].unique())
    columns = {name: [known.get(n) for n in steps] for name, known in at.items()}
    return pd.DataFrame({"steps": map(str, steps)} | columns)


STUDY = Study(
    runs=load,
    columns=["steps"],
    cell=CELL,
    measures={"phi.csv": measured},
    tables={"table.csv": table, "gaps.csv": gaps},
    page=[
        "# Training steps",
        pages.lines(pages.text(READING, metrics=pages.metrics), pages.head_rate),
        pages.sections("## {task} ({model})", pages.table(texts)),
        pages.failed_runs,
    ],
    figures={"steps.png": marks.Lines(x="steps", line="label", label="training steps", legend="method", of=table)},
)
