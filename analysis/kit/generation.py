"""Studies of generated text: from stored runs to a table with columns for each metric, and the paper's rows beside."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

import pandas as pd

from analysis.kit import (
    generation_figures,
    generation_report,
    method_figures,
    naming,
    samples,
    table_md,
    tables,
    tuning,
)
from analysis.kit.compare import METHOD, REFERENCES, reference
from analysis.kit.generation_metrics import VALIDATION_LOSS, Metric, Study, chosen
from analysis.maths import statistics
from experiments import places

TASK = ["model", "task"]
CELL = [*TASK, *METHOD]
COSTS = ["train_seconds", "tokens_per_second", "peak_memory_bytes"]


def build(study: Study, study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, differences.csv, table.md, <study>.png, samples.md and .csv and, if rates were tuned,
    learning_rates.csv and .png.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a method has two runs of a seed or
    runs of different learning rates.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    final = tables.in_role(runs, "study")
    tuning.check(final[final["main"] & (final["split"] == "test")], study_dir)
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    scores = measured(final)
    metrics = chosen(study.metrics, list(scores["metric"].unique()))
    ours, paper = tabulate(scores, metrics, rates), paper_rows(study, metrics)
    table, differences = layout(ours, paper), compare(scores, ours, metrics)

    inputs = samples.sizes(final, runs_dir, study_dir)
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    text = generation_report.report(study, table, differences, rates, metrics, inputs, failures)
    figure = generation_figures.draw_methods(
        scores, ours, paper, metrics, study_dir / f"{places.study_of(study_dir)}.png"
    )
    outputs = store(study_dir, runs, {"table": table, "differences": differences}, rates, text)
    return [*outputs, figure, *samples.write(final, runs_dir, study_dir)]


def store(
    study_dir: Path, runs: pd.DataFrame, frames: Mapping[str, pd.DataFrame], rates: pd.DataFrame, text: str
) -> list[Path]:
    """Writes runs.csv, a CSV for each of frames, table.md with the text and, if rates were tuned, learning_rates.csv
    and .png. Returns their paths."""
    frames = frames if rates.empty else {**frames, "learning_rates": rates}
    outputs = [study_dir / "runs.csv", study_dir / "table.md", *(study_dir / f"{name}.csv" for name in frames)]
    runs[tables.RUNS_COLUMNS].to_csv(outputs[0], index=False)
    table_md.write(outputs[1], text, runs)
    for path, frame in zip(outputs[2:], frames.values(), strict=True):
        frame.to_csv(path, index=False, float_format="%.6g")
    return outputs if rates.empty else [*outputs, method_figures.draw_rates(rates, study_dir / "learning_rates.png")]


def measured(final: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test split, and the validation loss as a metric of its own, VALIDATION_LOSS."""
    validation = final[(final["split"] == "validation") & (final["metric"] == "loss")]
    return pd.concat([final[final["split"] == "test"], validation.assign(metric=VALIDATION_LOSS)], ignore_index=True)


def tabulate(scores: pd.DataFrame, metrics: Mapping[str, Metric], rates: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL: n seeds, parameters, share (of what full fine-tuning trains), lr, for each metric its
    mean and <metric>_interval, as stored, costs, and the tuning, as `kit.tuning.outcomes` has it."""
    first = scores.groupby(CELL, sort=False)
    table = first.agg(n=("seed", "nunique"), trainable_params=("trainable_params", "max"), lr=("lr", "first"))
    table = table.reset_index()
    table.insert(list(table.columns).index("lr"), "share", _share(table, TASK))
    for name in metrics:
        found = tables.summarise(scores[scores["metric"] == name], CELL).drop(columns="n")
        table = table.merge(found.rename(columns={"mean": name, "interval": f"{name}_interval"}), on=CELL, how="left")
    table = table.merge(first[COSTS].mean().reset_index(), on=CELL)
    if rates.empty:
        return table
    return table.merge(tuning.outcomes(rates).drop(columns="metric"), on=CELL, how="left")


def _share(table: pd.DataFrame, by: list[str]) -> pd.Series:
    """trainable_params over those of the method `full` of the same group; NaN where it has none."""
    full = table[table["label"] == "full"].groupby(by)["trainable_params"].max().rename("full").reset_index()
    return table["trainable_params"] / table[by].merge(full, on=by, how="left")["full"].set_axis(table.index)


def full_and_lora(cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The methods of a task that the others are compared with: label and settings by their names in the tables."""
    return {name: base for name in REFERENCES if (base := reference(cells, name))}


def compare(
    scores: pd.DataFrame,
    table: pd.DataFrame,
    metrics: Mapping[str, Metric],
    references: Callable[[pd.DataFrame], Mapping[str, tuple[str, str]]] = full_and_lora,
) -> pd.DataFrame:
    """Every method minus each of `references` in every metric: a row for each model, task, reference (its name),
    metric and method, with the fields of `maths.statistics.against`, in the unit stored.

    p_holm is corrected for the methods compared with one reference in one metric.
    """
    parts = []
    for (model, task), cells in table.groupby(TASK, sort=False):
        runs = scores[(scores["model"] == model) & (scores["task"] == task)]
        for name, base in references(cells).items():
            for metric in metrics:
                found = statistics.against(runs[runs["metric"] == metric], METHOD, base)
                about = {"model": model, "task": task, "reference": name, "metric": metric}
                parts.append(pd.DataFrame([about] * len(found), columns=list(about)).join(found))
    columns = [*TASK, "reference", "metric", *METHOD, *statistics.Paired._fields, "p_holm"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def paper_rows(study: Study, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The rows of the paper's table as `tabulate` would give them: model, task, label, trainable_params, share, and the
    metrics it has, in the unit stored. Empty where it has none of `metrics`."""
    table = pd.read_csv(str(files("analysis").joinpath("paper", study.paper)))
    columns = {name: metric for name, metric in metrics.items() if metric.column in table}
    if not columns:
        return pd.DataFrame(columns=[*TASK, "label", "trainable_params", "share"])
    rows = table[["model"]].assign(task=study.paper_task, label=table["method"])
    rows["trainable_params"] = 1e6 * table["trainable_params"].str.removesuffix("M").astype(float)
    rows["share"] = _share(rows, TASK)
    return rows.assign(**{name: table[metric.column] / metric.scale for name, metric in columns.items()})


def layout(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """table.csv: our rows, then the paper's, told apart by `source`."""
    parts = [ours.assign(source="ours"), paper.assign(source="paper")]
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    table.insert(0, "source", table.pop("source"))
    return table.astype({"n": "Int64", "trainable_params": "Int64"})
