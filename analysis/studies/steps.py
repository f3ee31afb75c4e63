"""What desk scale is short of: how the gap to full fine-tuning, the best rate and phi(1,1) move with training steps."""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import figures, measured, naming, table_md, tables
from analysis.maths import statistics
from analysis.maths.subspace import phi
from analysis.weights import update_runs
from analysis.weights.comparison import directions
from experiments.records.source import Run, Runs
from lora.config import InputError

MEASURED = ("phi.csv",)
TASK = ["model", "task", "metric"]
CELL = [*TASK, "label", "settings", "steps"]
SIDE = "A"  # as the paper's figures: the directions of the input
READING = """\
Test {metrics} in percent, mean ± half-width of the 95% Student-t interval (number of seeds). The gap is LoRA minus full
fine-tuning, paired by seed, with its own interval. Each method has a learning rate of its own at each number of steps.
phi(1,1): the share of LoRA's first direction (of A) that two seeds have in common, its mean over layers and pairs of
seeds; two random directions share one in as many as the input is wide (chance)."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a method and number of steps), gaps.csv, phi.csv (a row a pair of runs and
    weight type, measured once on their adapters), table.md and steps.png.

    Returns their paths. Raises InputError if the runs are missing or damaged, if a method has two runs of a seed at a
    number of steps, or if the adapters of runs that are not measured yet are not there.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    steps = {run.run_id: run.read(partial(_steps, run)) for run in Runs(study_dir, runs_dir)}
    runs = runs.assign(steps=runs["run_id"].map(steps)).sort_values("steps", kind="stable", ignore_index=True)
    final = tables.in_role(runs, "study")
    test = final[final["main"] & (final["split"] == "test")]
    if test.empty:
        raise InputError(f"{study_dir} has no finished run; `{tables.make_command(study_dir)}` trains them")
    tables.check_seeds(test, CELL, study_dir)
    rates = test.groupby(CELL, sort=False)["lr"].first().reset_index()
    summary = tables.summarise(test, CELL).merge(rates, on=CELL)
    found, shared = gaps(test), measure(test, study_dir, runs_dir)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "gaps.csv", "table.md")}
    runs[[*tables.RUNS_COLUMNS, "steps"]].to_csv(outputs["runs.csv"], index=False)
    summary.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    found.to_csv(outputs["gaps.csv"], index=False, float_format="%.6g")
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, tables.load_failed(study_dir, runs_dir))
    text = report(summary, found, shared, tables.head_rate(runs), failures)
    table_md.write(outputs["table.md"], text, runs)
    return [*outputs.values(), study_dir / MEASURED[0], draw(test, summary, study_dir / "steps.png")]


def _steps(run: Run) -> int:
    training, examples = run.config["training"], int(run.metrics["train_examples"])
    return int(training["epochs"]) * math.ceil(examples / int(training["batch_size"]))


def gaps(test: pd.DataFrame) -> pd.DataFrame:
    """LoRA minus full fine-tuning at each number of steps: TASK, steps, and the fields of `statistics.Paired`."""
    rows: list[dict[str, Any]] = []
    for key, cells in test.groupby([*TASK, "steps"], sort=False):
        ours, theirs = (cells[cells["label"] == label].set_index("seed")["value"] for label in ("lora", "full"))
        if len(ours) and len(theirs):
            rows.append(dict(zip([*TASK, "steps"], key, strict=True)) | statistics.paired(ours, theirs)._asdict())
    return pd.DataFrame(rows, columns=[*TASK, "steps", *statistics.Paired._fields])


def measure(test: pd.DataFrame, study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """phi(1,1) of every two seeds of LoRA at one number of steps: run_id, other_run_id, weight_type, phi, the mean over
    layers, chance, and steps. What phi.csv has is not measured again."""
    lora = test[test["label"] == "lora"]
    groups = lora.groupby([*TASK, "settings", "steps"], sort=False)["run_id"]
    pairs = [pair for _, group in groups for pair in itertools.combinations(sorted(group), 2)]
    rows = measured.Rows(study_dir / MEASURED[0], ["run_id", "other_run_id"], pairs)
    for pair in rows.missing:
        first, second = (directions(update_runs.adapter(run_id, study_dir, runs_dir)) for run_id in pair)
        cells = [
            {
                "weight_type": site.weight_type,
                "phi": phi(u[:, :1], second[side, site][:, :1])[0, 0],
                "chance": 1 / len(u),
            }
            for (side, site), u in first.items()
            if side == SIDE
        ]
        means = pd.DataFrame(cells).groupby("weight_type", sort=False).mean().reset_index()
        rows.add(means.assign(run_id=pair[0], other_run_id=pair[1]))
    if rows.frame.empty:
        rows.write(pd.DataFrame(columns=["weight_type", "phi", "chance", "run_id", "other_run_id"]))
        return pd.DataFrame(columns=[*TASK, "steps", "weight_type", "phi", "chance"])
    return rows.frame.merge(lora[["run_id", *TASK, "steps"]], on="run_id")


def report(summary: pd.DataFrame, found: pd.DataFrame, shared: pd.DataFrame, head: str, failed: list[str]) -> str:
    """table.md: for each task a row a number of steps."""
    metrics = ", ".join(summary["metric"].unique())
    lines = ["# Training steps", "", READING.format(metrics=metrics), head]
    for key, cells in summary.groupby(TASK, sort=False):
        columns: dict[str, Any] = {"steps": sorted(cells["steps"].unique())}
        for (label, settings), rows in cells.groupby(["label", "settings"], sort=False):
            name, at = naming.title(label, settings), rows.set_index("steps")
            texts = dict(zip(at.index, map(statistics.mean_text, at["mean"], at["interval"], at["n"]), strict=True))
            columns[name] = [texts.get(n) for n in columns["steps"]]
            columns[f"rate of {label}"] = [f"{at['lr'][n]:g}" if n in at.index else None for n in columns["steps"]]
        gap = found[(found[TASK] == list(key)).all(axis=1)].set_index("steps")
        columns["lora minus full"] = [_gap(gap.loc[n]) if n in gap.index else None for n in columns["steps"]]
        own = shared[(shared[TASK] == list(key)).all(axis=1)]
        for weight_type, rows in own.groupby("weight_type", sort=False):
            means = rows.groupby("steps")["phi"].agg(["mean", "size"]).reset_index()
            texts = {row["steps"]: f"{row['mean']:.3f} ({row['size']:.0f} pairs)" for row in means.to_dict("records")}
            columns[f"phi(1,1) of {weight_type}, chance {rows['chance'].iloc[0]:.3f}"] = [
                texts.get(n) for n in columns["steps"]
            ]
        table = pd.DataFrame(columns).astype({"steps": str})
        lines += ["", f"## {key[1]} ({key[0]})", "", tables.markdown(table)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _gap(row: pd.Series) -> str:
    return f"{statistics.difference_text(row['difference'], row['interval'], row['p'])} ({row['pairs']:.0f} pairs)"


def draw(test: pd.DataFrame, summary: pd.DataFrame, path: Path) -> Path:
    """Quality against the number of steps: a panel for each model and task, a line for each method."""
    cells = list(summary.groupby(TASK, sort=False))
    figure, axes = figures.panels(1, len(cells), figures.PAGE_WIDTH if len(cells) > 1 else 5.0, 3.0)
    names = list(dict.fromkeys(summary["label"]))
    for axis, ((model, task, metric), means) in zip(axes.flat, cells, strict=True):
        seeds = test[(test["model"] == model) & (test["task"] == task)]
        figures.quality_lines(axis, seeds, means, "steps", "label", names)
        axis.set(title=f"{task} ({model})", xlabel="training steps", ylabel=f"test {metric} (%)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.supxlabel(figures.interval_note(summary["interval"]), fontsize=7)
    return figures.save(figure, path)
