"""LoRA's rank where text is generated (E2E): validation loss and test metrics over r, the paper's Table 18."""

import re
from collections.abc import Hashable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from analysis.kit import generation, generation_figures, naming, samples, tables, tuning
from analysis.kit.generation_metrics import BLEU, CIDER, METEOR_FRACTION, METEOR_NOTE, NIST, Metric, chosen
from analysis.kit.generation_report import TEST, caution, differences_table, mean_column, verdicts
from lora.config import InputError

PAPER_MODEL = "gpt2-medium"
REFERENCE_RANK = 4  # the best in the paper, and where the learning rate is tuned
METRICS = {
    "val_loss": Metric("validation loss", digits=3, lower=True, column="val_loss"),
    "bleu": BLEU,
    "nist": NIST,
    "meteor_stem": METEOR_FRACTION,
    "rouge_l": Metric("ROUGE-L", digits=3, column="rouge_l"),
    "cider": CIDER,
}
READING = f"""\
Ours are means over seeds ± half-width of the 95% Student-t interval; one seed gives no interval. An arrow marks metrics
of which lower is better. The paper's rows are its Table 18, {PAPER_MODEL} trained on all of E2E: compare how a metric
moves with r, not its level. alpha is the same for all r, so that the update's factor alpha / r falls as r grows, and
one learning rate serves all: a rank far from the one it was tuned at may do better at a rate of its own.
{METEOR_NOTE}
Spearman's rho says how alike two rows of means are in order; that of few and noisy means may be large by chance.
Differences are paired by seed, ± half-width of their own 95% interval;
{TEST}"""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, differences.csv, table.md, rank_generation.png, samples.md and .csv and, if rates
    were tuned, learning_rates.csv and .png.

    Returns their paths. Raises InputError if the runs are missing or damaged, if a setting has two runs of a seed or
    runs of different learning rates, or if a run has no rank.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    final = tables.in_role(runs, "study")
    tuning.check(final[final["main"] & (final["split"] == "test")], study_dir)
    final = with_lines(final, study_dir)
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)
    scores = generation.measured(final)
    metrics = chosen(METRICS, list(scores["metric"].unique()))
    ours = generation.tabulate(scores, metrics, rates).drop(columns="share")
    keys = final[["label", "settings", "line", "r"]].drop_duplicates()
    ours = ours.merge(keys, on=["label", "settings"])
    paper = paper_ranks(metrics)
    table = generation.layout(ours, paper)
    differences = generation.compare(scores, ours, metrics, reference_rank)

    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    inputs = samples.sizes(final, runs_dir, study_dir)
    text = report(table, differences, metrics, rates, inputs, failures)
    figure = generation_figures.draw_ranks(scores, ours, paper, metrics, study_dir / "rank_generation.png")
    outputs = generation.store(study_dir, runs, {"table": table, "differences": differences}, rates, text)
    return [*outputs, figure, *samples.write(final, runs_dir, study_dir)]


def with_lines(final: pd.DataFrame, study_dir: Path) -> pd.DataFrame:
    """final with r as whole numbers and `line`: the method without its rank. Raises InputError where a run has none."""
    without = final[~final["r"].map(lambda r: isinstance(r, int | float) and r > 0)]
    if not without.empty:
        name = naming.title(without["label"].iloc[0], without["settings"].iloc[0])
        command = tables.make_command(study_dir)
        raise InputError(
            f"{study_dir / 'sweep.jsonl'} lists a run without one rank, {name}; delete it, `{command}` lists ranks"
        )
    rest = final["settings"].map(lambda settings: re.sub(r"^r=\d+(, )?", "", settings))
    lines = [naming.title(*key) for key in zip(final["label"], rest, strict=True)]
    return final.assign(line=lines, r=final["r"].astype(int))


def reference_rank(cells: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The row that others are compared with, r = REFERENCE_RANK or else the smallest rank, as its name and its key."""
    row = cells.loc[(cells["r"] != REFERENCE_RANK).astype(int).sort_values(kind="stable").index[0]]
    return {f"r={row['r']}": (row["label"], row["settings"])}


def paper_ranks(metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The paper's Table 18: model, task, r and the metrics it has, in the unit stored. Empty if it has none."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table18_rank_gpt2.csv")))
    columns = {name: metric for name, metric in metrics.items() if metric.column in table}
    if not columns:
        return pd.DataFrame(columns=["model", "task", "r"])
    rows = table[["r"]].assign(model=PAPER_MODEL, task="e2e")
    return rows.assign(**{name: table[metric.column] / metric.scale for name, metric in columns.items()})


def report(
    table: pd.DataFrame,
    differences: pd.DataFrame,
    metrics: Mapping[str, Metric],
    rates: pd.DataFrame,
    inputs: Mapping[Hashable, str],
    failed: list[str],
) -> str:
    """table.md: what was found, Table 18 of ours and the paper's, differences to one rank, and the learning rate."""
    lines = ["# LoRA's rank on generated text (the paper's Table 18)", "", READING]
    ours, paper = (table[table["source"] == source] for source in ("ours", "paper"))
    for key, cells in ours.groupby(generation.TASK, sort=False):
        model, task = key
        found = differences[(differences["model"] == model) & (differences["task"] == task)]
        lines += ["", f"## {task} ({model}), {inputs[key]}", "", *findings(cells, paper, found, metrics), ""]
        lines += [tables.markdown(quality(pd.concat([cells, paper]), metrics))]
        if len(found):
            base = naming.title(*next(iter(reference_rank(cells).values())))
            lines += ["", f"Minus {base}:", "", tables.markdown(differences_table(found, metrics))]
    if not rates.empty:
        lines += ["", "## Learning rate", "", *(_choice(grid) for _, grid in rates.groupby(tuning.CELL, sort=False))]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def findings(
    cells: pd.DataFrame, paper: pd.DataFrame, differences: pd.DataFrame, metrics: Mapping[str, Metric]
) -> list[str]:
    """What the ranks of a task come to, counted from their numbers, as markdown list items."""
    lines = [f"- {caution(cells['n'], len(cells) - 1)}"]
    ranked = cells.groupby("r").mean(numeric_only=True)
    for name, metric in metrics.items():
        means, interval = metric.scale * ranked[name], metric.scale * ranked[f"{name}_interval"].mean()
        beside = "" if pd.isna(interval) else f", the mean half-width of an interval {interval:.{metric.digits}f}"
        line = f"- {metric.title}: best at r = {_best(means, metric)}; from {means.min():.{metric.digits}f} to "
        line += f"{means.max():.{metric.digits}f}{beside}."
        if paper[name].notna().any():
            line += f" The paper's is best at r = {_best(paper.set_index('r')[name], metric)}"
            line += f"{_agreement(ranked[name], paper.set_index('r')[name])}."
        lines.append(line)
    base = naming.title(*next(iter(reference_rank(cells).values())))
    if differences["p"].notna().any():
        lines.append(f"- Against {base}, {verdicts(differences, metrics)}")
    else:
        lines.append(f"- Against {base}: no test, which takes two seeds that both have.")
    return lines


def _best(means: pd.Series, metric: Metric) -> str:
    best = means.min() if metric.lower else means.max()
    return ", ".join(map(str, means.index[means == best]))


def _agreement(ours: pd.Series, paper: pd.Series) -> str:
    both = ours.dropna().index.intersection(paper.dropna().index)
    if len(both) < 4 or ours[both].nunique() == 1:
        return ""
    rho = spearmanr(ours[both], paper[both]).statistic
    return f"; over the {len(both)} ranks of both Spearman's rho of the two is {rho:.2f}"


def quality(cells: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The main table of a task, as text: a row for each source, line and rank."""
    columns: dict[str, Any] = {
        "from": cells["source"] + ", " + cells["model"],
        "method": cells["line"],
        "r": cells["r"],
        "parameters": cells["trainable_params"].map("{:,}".format, na_action="ignore"),
        "lr": cells["lr"].map("{:g}".format, na_action="ignore"),
        "seeds": cells["n"].astype(object),
    }
    for name, metric in metrics.items():
        columns[metric.heading] = mean_column(cells[name], cells[f"{name}_interval"], metric)
    return pd.DataFrame(columns)


def _choice(grid: pd.DataFrame) -> str:
    first = grid.iloc[0]
    chosen_rates = set(grid.loc[grid["chosen"], "lr"])
    tried = ", ".join(
        f"{lr:g}: {'did not train' if pd.isna(value) else f'{value:.3f}'}"
        for lr, value in zip(grid["lr"], grid["value"], strict=True)
    )
    used = ", ".join(f"{lr:g}" for lr in sorted(chosen_rates))
    line = f"- Chosen on validation data at {naming.title(first['label'], first['settings'])} and one seed, for every "
    line += f"rank of {first['task']} (validation {first['metric']} by rate: {tried}): "
    line += f"**{used}** is used." if used else "no run of the study has one of these rates yet."
    at_edge = chosen_rates & {grid["lr"].min(), grid["lr"].max()}
    return f"{line} It is at the edge of the grid: a rate outside may be better." if at_edge else line
