"""Quality of a language model against trained parameters, LoRA with prefixes too: the paper's Table 15."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import language_runs, samples, table_md, tables, task_figures, task_tables, tuning
from analysis.kit.cells import mean_texts
from analysis.maths import statistics
from analysis.studies import scaling

READING = f"""\
Quality is the test score of a task's first metric in percent: mean ± half-width of the 95% Student-t interval (number
of seeds); one seed gives no interval. A family is a line of the figure: methods of which only the size differs.
Parameters are those trained; nothing new is put on a language model, so there is no head among them. The paper's
numbers are those of its Table 15, {scaling.PAPER_MODEL}, on other tasks (its WikiSQL is nearest to SQL from questions,
its MNLI-m to a classification), single numbers on validation data: compare the shape of a line, not its level."""
FALLING = """\
Best: the size that is best on validation data, so that the test data do not choose it: by the mean score where the
task is to choose, by the mean loss a token where text is written (for the paper: in its table). Difference: largest
minus best, in points on test data, paired by seed, ± half-width of its 95% interval; p is of the paired t-test, by
Holm's method corrected for the families of a task that are tested."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a point), falls.csv (a row a line), table.md, table15.png, samples.md,
    samples.csv and, if rates were tuned, learning_rates.csv.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a point has two runs of a seed or
    runs of different learning rates.
    """
    runs = language_runs.load(study_dir, runs_dir)
    runs["line"] = scaling.line_names(runs)
    scores = language_runs.final_scores(runs)
    test = scores[scores["main"]]
    tuning.check(test, study_dir)
    points = scaling.tabulate(test)
    fallen = scaling.falls(pd.concat([validation_scores(tables.in_role(runs, "study")), test]))
    paper = scaling.paper_points()
    failed = tables.load_failed(study_dir, runs_dir)
    rates = tuning.rates(runs, failed)

    names = ("runs.csv", "table.csv", "falls.csv", "table.md", "table15.png")
    outputs = {name: study_dir / name for name in names}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    both = pd.concat([points.assign(source="ours"), paper.assign(source="paper")], ignore_index=True)
    both.drop(columns="without_head").to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    theirs = scaling.paper_falls(paper).assign(source="paper")
    falls = pd.concat([fallen.assign(source="ours"), theirs], ignore_index=True)
    falls.to_csv(outputs["falls.csv"], index=False, float_format="%.6g")
    data = language_runs.tested(test, runs_dir, study_dir)
    warning = language_runs.caution(points["n"], list(data.values()))
    failures = language_runs.failures(study_dir, failed)
    table_md.write(outputs["table.md"], report(points, paper, falls, rates, warning, failures), runs)
    task_figures.draw_tradeoff(points, test.assign(size=test["trainable_params"]), paper, outputs["table15.png"])
    if not rates.empty:
        outputs["learning_rates.csv"] = study_dir / "learning_rates.csv"
        rates.to_csv(outputs["learning_rates.csv"], index=False, float_format="%.6g")
    return [*outputs.values(), *samples.write(test, runs_dir, study_dir)]


def validation_scores(final: pd.DataFrame) -> pd.DataFrame:
    """The score by which each run is judged on validation data, under its main metric's name, higher is better: that
    metric, or minus the loss of runs that have it on test data alone."""
    rows = final[final["split"] == "validation"]
    scored = rows.groupby("run_id")["main"].transform("any").astype(bool)
    rows = rows[rows["main"] | (~scored & rows["metric"].isin(tuning.LOWER_IS_BETTER))]
    names = final[final["main"]].drop_duplicates("run_id").set_index("run_id")["metric"]
    lower = rows["metric"].isin(tuning.LOWER_IS_BETTER)
    return rows.assign(value=rows["value"].where(~lower, -rows["value"]), metric=rows["run_id"].map(names))


def report(
    points: pd.DataFrame,
    paper: pd.DataFrame,
    falls: pd.DataFrame,
    rates: pd.DataFrame,
    warning: str,
    failures: list[str],
) -> str:
    """table.md: every point, ours and the paper's, and where quality falls as parameters grow; `warning` says what so
    many seeds can tell."""
    lines = ["# Quality of a language model against trained parameters (the paper's Table 15)", "", READING]
    lines += ["", warning, "", "## All points", "", *_highest(points), "", tables.markdown(_points(points)), ""]
    lines += [*scaling.rate_lines(points, rates), "", f"The paper's, {scaling.PAPER_MODEL}:", ""]
    lines += [tables.markdown(_points(paper)), "", "## Does quality fall as parameters grow?", "", FALLING, ""]
    lines += [tables.markdown(scaling.falls_text(falls, "told apart?", _verdict))]
    if failures:
        lines += ["", "## Failed runs", "", *failures]
    return "\n".join(lines) + "\n"


def _highest(points: pd.DataFrame) -> list[str]:
    """The point with the highest mean of each task, as markdown list items."""
    lines = []
    for (model, task), cells in points.groupby(["model", "task"], sort=False):
        best = cells.sort_values("mean", ascending=False, kind="stable").iloc[0]
        name = statistics.mean_text(best["mean"], best["interval"], best["n"])
        lines.append(
            f"- {task} ({model}): highest mean {name}, {best['line']} ({best['settings'] or 'all weights'}), "
            f"{best['size']:,.0f} parameters; it is the highest of {len(cells)}, so partly so by chance."
        )
    return lines


def _points(points: pd.DataFrame) -> pd.DataFrame:
    """A row a point, a column a task."""
    keys = ["model", "line", "settings"]
    rows = points.drop_duplicates(keys)
    columns: dict[str, Any] = {
        "model": rows["model"],
        "family": rows["line"],
        "settings": rows["settings"].where(rows["settings"] != ""),
        "parameters": rows["size"].map("{:,.0f}".format),
        "log10": [f"{np.log10(size):.2f}" if size else None for size in rows["size"]],
    }
    cells = points.assign(**{name: points.get(name, np.nan) for name in ("interval", "n")})
    for (task, metric), found in cells.groupby(["task", "metric"], sort=False):
        columns[f"{task} {metric}"] = task_tables.looked_up(found, mean_texts(found), rows, keys)
    return pd.DataFrame(columns)


def _verdict(row: Mapping[Any, Any]) -> str:
    if row["best"] == row["largest"]:
        return "the largest is the best"
    if row["source"] == "paper":
        return "single numbers"
    if pd.isna(row["p_holm"]):
        return "no test: it takes two seeds that differ"
    if row["p_holm"] >= 0.05:
        return "no"
    return "yes, it falls" if row["difference"] < 0 else "yes, the largest is better on test data"
