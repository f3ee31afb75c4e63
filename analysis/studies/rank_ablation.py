"""Quality against rank for several sets of weight types: the paper's Table 6."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import answer, figures, table_md, tables, tuning
from lora.config import InputError

CELL = ["model", "task", "metric", "weight_types", "r"]
PAPER_MODEL = "GPT-3 175B"
PAPER_METRIC = "accuracy"
READING = """\
Ours: {metrics} on the test split in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one
seed gives no interval. The paper's rows are the validation accuracy of its Table 6, {paper} on other tasks: compare how
quality moves with rank, not its level."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, table.md, rank_ablation.png and, if there was a grid, learning_rates.csv.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a seed of a cell has two runs.
    """
    runs = tables.load_runs(study_dir, runs_dir).sort_values(["model", "task", "r", "lr", "seed"], ignore_index=True)
    runs["order"] = runs["weight_types"].str.count(r"\+")
    runs = runs.sort_values(["model", "task", "order", "weight_types"], kind="stable", ignore_index=True)
    final = tables.in_role(runs, "study")
    test = final[final["main"] & (final["split"] == "test")]
    _check(test, study_dir)
    summary = tables.summarise(test, CELL)
    rates = learning_rates(runs)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    layout(summary).to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs["table.md"], report(summary, rates, failed), runs, answer.ranks(runs))
    return [*outputs.values(), draw(test, summary, study_dir / "rank_ablation.png")]


def _check(test: pd.DataFrame, study_dir: Path) -> None:
    if test.empty:
        raise InputError(
            f"{study_dir} has no finished run of the ablation; `{tables.make_command(study_dir)}` trains them"
        )
    tables.check_seeds(test, CELL, study_dir)


def paper_summary() -> pd.DataFrame:
    """The paper's Table 6 as `summarise` would give it: CELL columns and mean, a fraction; it reports no n."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table06_rank.csv")))
    table = table.melt(["task", "weight_types"], var_name="r", value_name="mean").astype({"mean": float})
    table["r"] = table["r"].str.removeprefix("r").astype(int)
    return table.assign(mean=table["mean"] / 100, model=PAPER_MODEL, metric=PAPER_METRIC)


def layout(summary: pd.DataFrame) -> pd.DataFrame:
    """Table 6: a row for each source, model, task and weight set, and for each rank the columns r<rank> (the mean, a
    fraction), r<rank>_interval (half-width) and r<rank>_n; the paper's rows follow ours."""
    long = pd.concat([summary.assign(source="ours"), paper_summary().assign(source="paper")], ignore_index=True)
    rows = ["source", *CELL[:-1]]
    wide = long.set_index([*rows, "r"])[["mean", "interval", "n"]].unstack("r")
    wide = wide.reindex(pd.MultiIndex.from_frame(long[rows].drop_duplicates()))
    ranks = sorted(long["r"].unique())
    parts = {"mean": "r{}", "interval": "r{}_interval", "n": "r{}_n"}
    columns = {name.format(r): wide[part, r] for r in ranks for part, name in parts.items()}
    return pd.DataFrame(columns).convert_dtypes().reset_index()


def learning_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The learning-rate grid: mean validation value of the tuning runs for each model, task, weight set and lr.

    chosen: this is the rate that the ablation's runs of that task and weight set were trained with.
    """
    cell = ["model", "task", "weight_types"]
    tuning = tables.in_role(runs, "tuning")
    tuning = tuning[tuning["main"] & (tuning["split"] == "validation")]
    if tuning.empty:
        return pd.DataFrame()
    grid = tables.summarise(tuning, [*cell, "metric", "lr"]).rename(columns={"mean": "value"}).drop(columns="interval")
    used = tables.in_role(runs, "study")[[*cell, "lr"]].drop_duplicates().assign(chosen=True)
    grid = grid.merge(used, on=[*cell, "lr"], how="left")
    return grid.assign(chosen=grid["chosen"].notna())


def report(summary: pd.DataFrame, rates: pd.DataFrame, failed: list[str]) -> str:
    """table.md: Table 6, how to read it, the choice of learning rates, and the runs that failed."""
    wide = layout(summary)
    cells: dict[str, Any] = {
        "source": wide["source"] + ", " + wide["model"],
        "task": wide["task"],
        "weights": wide["weight_types"],
    }
    for r in (int(name[1:]) for name in wide.columns if name[1:].isdigit()):
        parts = (wide[name] for name in (f"r{r}", f"r{r}_interval", f"r{r}_n"))
        cells[f"r = {r}"] = [_cell(*part) for part in zip(*parts, strict=True)]
    metrics = ", ".join(summary["metric"].unique())
    title = "# Rank ablation (the paper's Table 6)"
    lines = [title, "", tables.markdown(pd.DataFrame(cells)), "", READING.format(metrics=metrics, paper=PAPER_MODEL)]
    if not rates.empty:
        chosen = "Chosen on validation data from a grid, at one rank and one seed, for each task and set of weights."
        lines += ["", "## Learning rates", "", chosen, ""]
        lines += [_choice(grid) for _, grid in rates.groupby(["model", "task", "weight_types"], sort=False)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _cell(mean: float, interval: float, n: int) -> str | None:
    if pd.isna(mean):
        return None
    if pd.isna(n):
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ({n})" if pd.isna(interval) else f"{100 * mean:.1f} ± {100 * interval:.1f} ({n})"


def _choice(grid: pd.DataFrame) -> str:
    rates = grid.sort_values("lr").to_dict("records")
    chosen = [rate["lr"] for rate in rates if rate["chosen"]]
    values = ", ".join(f"{rate['lr']:g}: {100 * rate['value']:.1f}" for rate in rates)
    first = rates[0]
    line = f"- {first['task']}, {first['weight_types']} (validation {first['metric']} in percent by rate: {values}): "
    if not chosen:
        return line + "the ablation has no run at these rates yet."
    line += f"**{', '.join(f'{lr:g}' for lr in chosen)}** is used."
    highest = max(rate["value"] for rate in rates)
    best = [rate for rate in rates if rate["value"] >= highest - tuning.ROUNDING]
    others = " and ".join(f"{rate['lr']:g}" for rate in best if not rate["chosen"])
    if others and len(best) > others.count(" and ") + 1:
        line += f" {others} scored the same: of equals the one nearest to the middle of the grid is taken."
    elif others:
        line += f" {others} is better for this task alone."
    if {rates[0]["lr"], rates[-1]["lr"]} & set(chosen):
        line += " It is at the edge of the grid: a rate outside may be better."
    return line


def draw(test: pd.DataFrame, summary: pd.DataFrame, path: Path) -> Path:
    """Quality against rank: a panel for each model and task, a line for each weight set."""
    cells = list(summary.groupby(["model", "task", "metric"], sort=False))
    names = list(dict.fromkeys(summary["weight_types"]))
    columns = min(len(cells), 3)
    rows = -(-len(cells) // columns)
    figure, axes = figures.panels(rows, columns, figures.PAGE_WIDTH if columns > 1 else 5.0, 2.9 * rows)
    for axis, ((model, task, metric), means) in zip(axes.flat, cells, strict=False):
        seeds = test[(test["model"] == model) & (test["task"] == task)]
        figures.quality_lines(axis, seeds, means, "r", "weight_types", names)
        # The runs set the scale: an interval over three seeds of which one failed would squeeze all else into a line.
        lowest, highest = 100 * seeds["value"].min(), 100 * seeds["value"].max()
        margin = max(1.0, 0.1 * (highest - lowest))
        limits = (lowest - margin, highest + margin)
        axis.set(title=f"{task} ({model})", xlabel="rank r", ylabel=f"test {metric} (%)", ylim=limits)
    for axis in axes.flat[len(cells) :]:
        axis.axis("off")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), title="LoRA on", loc="outside right upper", frameon=False)
    figure.supxlabel(figures.interval_note(summary["interval"]), fontsize=7)
    return figures.save(figure, path)
