"""table.md of a study of generated text: what was found and what it can bear, in words and in tables."""

import itertools
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from analysis.kit import naming, tables
from analysis.kit.compare import METHOD, REFERENCES, reference
from analysis.kit.generation_metrics import Metric, Study
from analysis.kit.method_tables import effort
from analysis.kit.sentences import listed, told
from analysis.maths import statistics

TASK = ["model", "task"]
READING = """\
Ours are test scores, means over seeds ± half-width of the 95% Student-t interval; one seed gives no interval. Share is
that of the parameters that full fine-tuning trains. An arrow marks metrics of which lower is better. The paper's rows
are its {title}, of other models on {paper_task}, trained on all of it: compare the order of methods and what they need,
not levels. Differences are paired by seed, ± half-width of their own 95% interval;
{test}
Times and memory are those of the runs as they were made, not a benchmark. In table.csv every metric is as it is stored,
which for those in percent is a fraction."""
TEST = """\
p is of the paired t-test, by Holm's method corrected for all that is compared with one reference in one metric, but not
for the number of metrics, which rate the same texts; `*` marks p < 0.05; differences all alike have no p."""
TUNING = """\
Only the learning rate is tuned, for every method on its own, by the best validation {metric} with the first seed; the
test data choose nothing. Every method starts with a grid of as many rates, which grows where the best lies at its edge.
Good to 0.01 or 0.02 is the factor from the lowest to the highest rate around the best whose validation {metric} is
worse by no more than that, interpolated over log lr; ≥ says that it reaches the last rate tried."""
UNTUNED = "No learning rate was tuned in this study: every method ran at the rate given here."
ONE_SEED = """\
One seed a method: there is no interval and no test. Whether any of the differences would come again cannot be said."""
FEW_SEEDS = """\
What {seeds} seeds can bear: before p is below 0.05, a difference to the reference must be {alone:.1f} times its
standard error if it is the only one, and {corrected:.1f} times if it is the clearest of {comparisons}. Only large and
steady differences pass; "not told apart" does not say that two methods are equal. Seeds vary the start and the order of
training alone: how scores would move with other test inputs is in no interval here."""


def report(
    study: Study,
    table: pd.DataFrame,
    differences: pd.DataFrame,
    rates: pd.DataFrame,
    metrics: Mapping[str, Metric],
    inputs: Mapping[Hashable, str],
    failed: list[str],
) -> str:
    """table.md, of the frames of `kit.generation`; inputs: the size of each model's and task's test split."""
    ours, paper = (table[table["source"] == source] for source in ("ours", "paper"))
    lines = [f"# {title(study, list(ours['task'].unique()))}", ""]
    lines += [READING.format(title=paper_name(study), paper_task=study.paper_task, test=TEST)]
    watched = " or ".join(rates["metric"].unique())
    lines += [study.note, "", UNTUNED if rates.empty else TUNING.format(metric=watched)]
    for key, cells in ours.groupby(TASK, sort=False):
        model, task = key
        found = differences[(differences["model"] == model) & (differences["task"] == task)]
        lines += ["", f"## {task} ({model}), {inputs[key]}", "", *findings(cells, found, metrics), ""]
        lines += [tables.markdown(quality(pd.concat([cells, paper]), metrics))]
        for name, rows in found.groupby("reference", sort=False):
            base = naming.title(*(reference(cells, str(name)) or ""))
            lines += ["", f"Minus {base}:", "", tables.markdown(differences_table(rows, metrics))]
        spent = effort(cells).rename(columns={"good to 1 point": "good to 0.01", "good to 2 points": "good to 0.02"})
        lines += ["", tables.markdown(spent)]
    pending = rates.merge(ours[[*TASK, *METHOD]], on=[*TASK, *METHOD], how="left", indicator=True)
    pending = pending[pending["_merge"] == "left_only"].drop_duplicates([*TASK, *METHOD])
    if len(pending):
        names = ", ".join(f"{naming.title(row.label, row.settings)} on {row.task}" for row in pending.itertuples())
        lines += ["", f"Tuned, but without a finished run that is compared: {names}."]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def title(study: Study, tasks: list[str]) -> str:
    """The study's own title where its runs are on the paper's task; else one that says which tasks they are on."""
    if study.paper_task in tasks:
        return study.title
    return f"Text generation on {', '.join(tasks)} (as in the paper's {paper_name(study)})"


def paper_name(study: Study) -> str:
    """`Table 3`, from the file's name."""
    return f"Table {int(study.paper[5:7])}"


def findings(cells: pd.DataFrame, differences: pd.DataFrame, metrics: Mapping[str, Metric]) -> list[str]:
    """What the rows of a task say, counted from their numbers, as markdown list items."""
    names = {key: naming.title(*key) for key in naming.keys(cells)}
    lines = [f"- {caution(cells['n'], len(cells) - 1)}"]
    best = [
        f"{metric.title} {names[naming.keys(cells)[_best(cells[name], metric)]]}"
        for name, metric in metrics.items()
        if cells[name].notna().any()
    ]
    lines.append(f"- The best mean, be it by chance: {'; '.join(best)}.")
    for name in REFERENCES:
        base = reference(cells, name)
        rows = differences[differences["reference"] == name]
        if base is None:
            lines.append(f"- No run of {name}: nothing is compared with it.")
        elif rows["p"].isna().all():
            lines.append(f"- Against {naming.title(*base)}: no test, which takes two seeds that both have.")
        else:
            lines.append(f"- Against {naming.title(*base)}, {verdicts(rows, metrics)}")
    if "tried" in cells and cells["tried"].notna().any():
        tuned = cells[cells["tried"].notna()]
        edge = ", ".join(names[key] for key in naming.keys(tuned[tuned["at_edge"].astype(bool)])) or "none"
        lines.append(
            f"- Learning rates: {tuned['tried'].sum():.0f} tuning runs, {tuned['failed'].sum():.0f} of which did not "
            f"train. Best rate still at the edge of those tried, so that a better one may lie outside: {edge}."
        )
    return lines


def caution(n: pd.Series, comparisons: int) -> str:
    """What so many seeds can and cannot bear; n: seeds of each method."""
    seeds = int(n.max())
    if seeds < 2:
        return " ".join(ONE_SEED.split())
    alone, corrected = (float(stdtrit(seeds - 1, 1 - 0.025 / number)) for number in (1, max(comparisons, 1)))
    few = "" if n.min() == n.max() else f" Some methods have {n.min()}, which bear less."
    text = FEW_SEEDS.format(seeds=seeds, alone=alone, corrected=corrected, comparisons=max(comparisons, 1))
    return " ".join(text.split()) + few


def verdicts(rows: pd.DataFrame, metrics: Mapping[str, Metric]) -> str:
    """How many tests there are, and which methods are better and which worse, by p_holm below 0.05.

    p_holm is corrected for the tests of one metric.
    """
    better, worse, neither = found = told(rows, lower=rows["metric"].map(lambda name: metrics[name].lower))
    sides = f"better: {_named(better, metrics)} – worse: {_named(worse, metrics)} – not told apart: {len(neither)}"
    return f"{found.tests} tests, corrected metric by metric: {sides}."


def _named(rows: pd.DataFrame, metrics: Mapping[str, Metric]) -> str:
    found = [
        f"{naming.title(*key)} in {', '.join(metrics[name].title for name in own['metric'])}"
        for key, own in rows.groupby(METHOD, sort=False)
    ]
    return listed(found, "; ")


def _best(means: pd.Series, metric: Metric) -> int:
    return int((-means if metric.lower else means).argmax())


def quality(cells: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """The main table of a task, as text: ours, then the paper's rows."""
    columns: dict[str, Any] = {
        "from": cells["source"] + ", " + cells["model"],
        "method": cells["label"],
        "settings": cells["settings"].where(cells["settings"] != ""),
        "parameters": cells["trainable_params"].map("{:,}".format),
        "share": cells["share"].map(lambda share: None if pd.isna(share) else f"{100 * share:.3g}%"),
        "seeds": cells["n"].astype(object),
    }
    for name, metric in metrics.items():
        columns[metric.heading] = mean_column(cells[name], cells[f"{name}_interval"], metric)
    return pd.DataFrame(columns)


def mean_column(means: pd.Series, intervals: pd.Series, metric: Metric) -> list[str | None]:
    """Means with their intervals, in the unit the metric is shown in; None where there is no mean."""
    return [
        None if pd.isna(mean) else statistics.mean_text(mean, interval, float("nan"), metric.scale, metric.digits)
        for mean, interval in zip(means, intervals, strict=True)
    ]


def differences_table(rows: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Differences to one reference as text: a row a method, a column a metric; p is by Holm's method."""
    table = rows[METHOD].drop_duplicates().rename(columns={"label": "method"})
    rows = rows.assign(usual=rows["pairs"].max())
    for name, metric in metrics.items():
        found = rows[rows["metric"] == name]
        fields = found[["difference", "interval", "p_holm", "pairs", "usual"]].itertuples(index=False, name=None)
        shown = itertools.starmap(partial(statistics.paired_text, scale=metric.scale, digits=metric.digits), fields)
        texts = dict(zip(naming.keys(found), shown, strict=True))
        table[metric.heading] = [texts.get(key) for key in zip(table["method"], table["settings"], strict=True)]
    return table.assign(settings=table["settings"].where(table["settings"] != ""))
