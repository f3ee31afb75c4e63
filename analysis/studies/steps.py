"""What desk scale is short of: how the gap to full fine-tuning, the best rate and phi(1,1) move with training steps."""

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import cells, figures, marks, metrics, naming, pages, tables
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


def drawn(data: Data, path: Path) -> Path:
    """Four panels for each of TASK, over the steps: quality, the gap, the rates chosen, and phi(1,1)."""
    rows = data["table.csv"]
    places = [*rows.groupby(TASK, sort=False)]
    figure, axes = figures.panels(2 * len(places), 2, figures.PAGE_WIDTH, 4.6 * len(places))
    for (place, own), panels in zip(places, axes.reshape(len(places), 4), strict=True):
        runs, gap, phi = (marks.at(frame, place) for frame in (data.scores, data["gaps.csv"], data["phi.csv"]))
        unit, names = metrics.of(str(place[2])), list(dict.fromkeys(own["label"]))
        figures.quality_lines(panels[0], runs, own, "steps", "label", names, unit.scale)
        panels[0].set(title=f"{place[1]} ({place[0]})", ylabel=unit.axis)
        panels[0].legend(frameon=False)
        _gap(panels[1], gap, unit.scale)
        for name in names:
            colour, marker = figures.line_styles(names)[name]
            chosen = own[own["label"] == name]
            panels[2].plot(chosen["steps"], chosen["lr"], color=colour, marker=marker)
        panels[2].set(title="learning rate chosen", yscale="log")
        _phi(panels[3], phi)
        for axis in panels:
            figures.size_axis(axis, sorted(own["steps"].unique()))
            axis.set_xlabel("training steps")
    return marks.finish(figure, rows["interval"], data.scores["value"], path)


def _gap(axis: Axes, gap: pd.DataFrame, scale: float) -> None:
    axis.axhline(0, color=figures.GREY, linewidth=0.8)
    axis.errorbar(gap["steps"], scale * gap["difference"], yerr=scale * gap["interval"], color="black", **figures.DOTS)
    axis.set(title="LoRA minus full fine-tuning", ylabel="points" if scale == 100 else "difference")


def _phi(axis: Axes, phi: pd.DataFrame) -> None:
    colours = itertools.cycle(sns.color_palette("colorblind")[2:])  # the first two are methods
    for (weight_type, own), colour in zip(phi.groupby("weight_type", sort=False), colours, strict=False):
        shared = own.groupby("steps")["phi"].mean()
        axis.plot(shared.index, shared, color=colour, marker="o", markersize=4, label=weight_type)
        axis.scatter(own["steps"], own["phi"], s=7, color=colour, alpha=0.45, linewidths=0)
    if len(phi):
        axis.axhline(phi["chance"].mean(), color=figures.GREY, linestyle=":", linewidth=0.9, label="chance")
        axis.legend(frameon=False)
    axis.set(title="phi(1,1) of two seeds", ylim=(0, None))


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
    figures={"steps.png": drawn},
)
