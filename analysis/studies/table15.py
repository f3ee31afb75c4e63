"""Quality of a language model against trained parameters, LoRA with prefixes too: the paper's Table 15."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.kit import cells, language_runs, marks, metrics, pages, samples, tuning
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.study import Study
from analysis.studies import scaling

READING = f"""\
Quality is the test loss, nats a token, which scatters least between seeds, and the test score of a task's first metric
in percent: mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives no interval. A family is a
line of the figure: methods of which only the size differs. Parameters are those trained; nothing new is put on a
language model, so there is no head among them. The paper's numbers are those of its Table 15, {scaling.PAPER_MODEL}, on
other tasks (its WikiSQL is nearest to SQL from questions, its MNLI-m to a classification), single numbers on validation
data: compare the shape of a line, not its level."""
FALLING = """\
Best: the size that is best on validation data, so that the test data do not choose it: for the loss by the mean loss,
for the score by the mean score where the task is to choose, by the mean loss where text is written (for the paper: in
its table). Difference: largest minus best on test data, in nats a token or points, paired by seed, ± half-width of its
95% interval; p is of the paired t-test, by Holm's method corrected for the families of a task that are tested."""


def validation_scores(final: pd.DataFrame) -> pd.DataFrame:
    """By what each run is judged on validation data: its loss; and under its main metric's name, higher is better, that
    metric, or minus the loss of runs that have it on test data alone."""
    rows = final[final["split"] == "validation"]
    losses = rows[rows["metric"] == "loss"]
    scored = rows.groupby("run_id")["main"].transform("any").astype(bool)
    rows = rows[rows["main"] | (~scored & rows["metric"].isin(tuning.LOWER_IS_BETTER))]
    names = final[final["main"]].drop_duplicates("run_id").set_index("run_id")["metric"]
    lower = rows["metric"].isin(tuning.LOWER_IS_BETTER)
    scores = rows.assign(value=rows["value"].where(~lower, -rows["value"]), metric=rows["run_id"].map(names))
    return pd.concat([losses, scores])


def best(data: Data) -> list[str]:
    """The point with the best mean of each task and metric, as markdown list items."""
    lines = []
    for (model, task, metric), points in scaling.of(data, "ours").groupby(TASK, sort=False):
        unit = metrics.of(str(metric))
        first = points.sort_values("mean", ascending=unit.lower, kind="stable").head(1)
        [row], [mean] = first.to_dict("records"), cells.mean_texts(first)
        lines.append(
            f"- {task} ({model}): best {unit.title} {mean}, {row['line']} "
            f"({row['settings'] or 'all weights'}), {row['size']:,.0f} parameters; it is the best of {len(points)}, so "
            "partly so by chance."
        )
    return lines


def _verdict(row: Mapping[Any, Any]) -> str:
    if row["best"] == row["largest"]:
        return "the largest is the best"
    if row["source"] == "paper":
        return "single numbers"
    if pd.isna(row["p_holm"]):
        return "no test: it takes two seeds that differ"
    if row["p_holm"] >= 0.05:
        return "no"
    return "yes, it falls" if scaling.is_worse(row) else "yes, the largest is better on test data"


STUDY = Study(
    runs=lambda *folders: scaling.with_lines(language_runs.load(*folders)),
    scores=language_runs.scored,
    cell=tuning.CELL,
    one_rate=True,
    tables={
        "table.csv": lambda data: scaling.points(data).drop(columns="without_head"),
        "falls.csv": lambda data: scaling.both_falls(pd.concat([validation_scores(data.final), data.scores])),
        "learning_rates.csv": tuning.tried,
    },
    page=[
        "# Quality of a language model against trained parameters (the paper's Table 15)",
        READING,
        language_runs.warning(lambda data: data["falls.csv"].query("source == 'ours'")),
        "## All points",
        best,
        *scaling.all_points(),
        "## Does quality fall as parameters grow?",
        FALLING,
        pages.table(lambda data: scaling.falls_text(data["falls.csv"], "told apart?", _verdict)),
        pages.failed_runs,
    ],
    figures={
        "table15.png": marks.Lines(
            x="size", line="line", label="trained parameters", legend="family", of=scaling.sized, runs=scaling.single,
            paper=scaling.paper_points, columns=2,
        )
    },
    more=[samples.of],
)  # fmt: skip
