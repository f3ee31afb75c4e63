"""What a language model forgets by being trained: its loss on other texts before and after, beside what it learns."""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.kit import (
    cells,
    language_runs,
    marks,
    measured,
    method_figures,
    method_tables,
    metrics,
    naming,
    pages,
    tuning,
)
from analysis.kit.compare import METHOD, minus_texts, reference
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.sentences import LEVEL, caution, listed, told
from analysis.kit.study import Study
from analysis.maths import statistics
from experiments.measure.schemas import FORGETTING as SCHEMA

FORGETTING = "forgetting_"  # before a text's name: the metric
READING = """\
Forgetting is the loss on a text after training minus that of the base model: nats a token, over windows that are the
same for all; above 0 is worse. It is measured with what the method has added in place. A prefix comes before each
window; infix tokens, which follow a context, come after it and so change nothing. Learnt is what the test data of the
task show: the loss in nats a target token, lower is better, by which methods are compared, and beside it the task's own
metric in percent. All are means over seeds ± half-width of the 95% Student-t interval (number of seeds); one seed gives
no interval and no test. Differences to full fine-tuning are paired by seed, ± half-width of their own 95% interval; p
is of the paired t-test, by Holm's method corrected for all methods compared in one column, and `*` marks p < 0.05.
Seeds vary the start and the order of training alone, not the texts."""


def losses(data: Data) -> pd.DataFrame:
    """A row for each run and text: loss_before and loss_after, nats a token. Raises InputError if one is missing."""
    return measured.read(data.folder, SCHEMA, set(data.scores["run_id"]))


def scores(data: Data) -> pd.DataFrame:
    """What was learnt, the loss first, and for each text rows of a metric FORGETTING + text, of which `before` is the
    base model's loss and value the rise. `line`: for runs of LoRA with one rank their weight types, "" for all
    others."""
    test, texts = data.scores, data.once(losses)[["run_id", "text", "loss_before", "loss_after"]]
    rises = test[test["main"]].drop(columns=["metric", "value"]).merge(texts, on="run_id").assign(main=False)
    rises = rises.assign(
        metric=FORGETTING + rises["text"],
        value=rises["loss_after"] - rises["loss_before"],
        before=rises["loss_before"],
    )
    both = pd.concat([test, rises[[*test.columns, "before"]]], ignore_index=True)
    ranked = (both["label"] == "lora") & both["r"].map(lambda r: isinstance(r, int | float) and r > 0)
    return both.assign(line=("lora " + both["weight_types"].fillna("")).where(ranked, ""))


def table(data: Data) -> pd.DataFrame:
    """The rows of `kit.method_tables.tabulate` with line and r, and of a text's forgetting `before` and `zero_p_holm`,
    of the test that it is 0, corrected for all methods measured on that text."""
    rows, keys = data.once(scores), tuning.CELL
    found = method_tables.tabulate(rows).merge(rows.groupby(keys)[["line", "r", "before"]].first(), on=keys, how="left")
    tests = []
    for key, runs in rows[rows["before"].notna()].groupby(keys, sort=False):
        before = runs.set_index("seed")["before"]
        tests.append((*key, statistics.paired(before + runs.set_index("seed")["value"], before).p))
    zero = pd.DataFrame(tests, columns=[*keys, "p"])
    zero["zero_p_holm"] = zero.groupby(TASK, sort=False)["p"].transform(statistics.holm)
    return found.merge(zero.drop(columns="p"), on=keys, how="left")


def over_ranks(data: Data) -> pd.DataFrame:
    """For each line of LoRA with two ranks or more its largest minus its smallest, on every text: TASK, line, smallest,
    largest, the fields of `maths.statistics.Paired`, and p_holm, corrected for the texts and lines of a task."""
    rows, found = data.once(scores), []
    for key, line in rows[(rows["line"] != "") & rows["before"].notna()].groupby([*TASK, "line"], sort=False):
        smallest, largest = line["r"].min(), line["r"].max()
        if smallest < largest:
            ends = [line[line["r"] == r].set_index("seed")["value"] for r in (largest, smallest)]
            found.append((*key, smallest, largest, *statistics.paired(*ends)))
    ranks = pd.DataFrame(found, columns=[*TASK, "line", "smallest", "largest", *statistics.Paired._fields])
    return ranks.assign(p_holm=ranks.groupby(TASK[:2], sort=False)["p"].transform(statistics.holm))


def by_metric(data: Data) -> dict[str, pd.DataFrame]:
    """The rows of a task by metric, with the `name` of each method."""
    rows = data["table.csv"]
    named = rows.assign(name=[naming.title(*key) for key in naming.keys(rows)])
    return {str(metric): found for metric, found in named.groupby("metric", sort=False)}


def findings(data: Data) -> list[str]:
    """What the methods of a task come to, from their numbers and corrected tests, as markdown list items."""
    rows, ranks = by_metric(data), data["ranks.csv"]
    lines = [f"- {caution(rows['loss']['n'], len(rows['loss']) - 1)}"]
    for text, about in data.once(losses).groupby("text", sort=False):
        forgotten, first = rows[f"{FORGETTING}{text}"], about.iloc[0]
        windows = f"{first['windows']} windows of {first['tokens']} tokens"
        lines.append(f"- **{text}** ({windows}): the base model's loss is {first['loss_before']:.3f}.")
        own = ranks[ranks["metric"] == f"{FORGETTING}{text}"].to_dict("records")
        said = [*_verdicts(forgotten, rows["loss"]), *(_rank_line(row, forgotten) for row in own)]
        lines += [f"  - {line}" for line in said]
    return lines


def _verdicts(forgotten: pd.DataFrame, learnt: pd.DataFrame) -> list[str]:
    """On one text: who forgets, who forgets and learns less than full fine-tuning, and who is behind nobody."""
    lines = []
    rises, falls, neither = found = told(forgotten.assign(zero_difference=forgotten["mean"]), "zero_")
    if found.tests:
        lines.append(
            f"By {found.tests} corrected tests the loss rises with {listed(rises['name'])}; it falls with "
            f"{listed(falls['name'])}; not told apart from 0 with {listed(neither['name'])}."
        )
    if reference(learnt, "full") is None:
        lines.append("No run of full: nothing is compared with it.")
    elif not told(forgotten, "full_").tests:
        lines.append("Against full: no test, which takes two seeds that both have.")
    else:
        lines.append(f"Against full, by corrected tests: {_beside_full(forgotten, learnt)}.")
    both = forgotten.merge(learnt[[*METHOD, "mean"]], on=METHOD, suffixes=("", "_loss"))
    pairs = list(zip(both["mean"], both["mean_loss"], strict=True))
    front = [not any(a < forgets and b < loss for a, b in pairs) for forgets, loss in pairs]
    best = listed(both.loc[front, "name"])
    return [*lines, f"By their means alone, no other is better on both counts, forgetting and test loss, than: {best}."]


def _beside_full(forgotten: pd.DataFrame, learnt: pd.DataFrame) -> str:
    """The methods in groups: what the tests say of their forgetting and of their learning beside full fine-tuning's."""
    forgetting = ("forgets less", "forgetting not told apart", "forgets more")
    learning = ("learns less", "learning not told apart", "learns more")
    forgets, learns = _sides(forgotten, forgetting), _sides(learnt, learning[::-1])
    groups: dict[tuple[str, str], list[str]] = {}
    for name in forgotten.loc[forgotten["label"] != "full", "name"]:
        groups.setdefault((forgets[name], learns[name]), []).append(name)
    pairs = [pair for pair in itertools.product(forgetting, learning) if pair in groups]
    return "; ".join(f"{' and '.join(pair)}: {', '.join(groups[pair])}" for pair in pairs)


def _sides(rows: pd.DataFrame, verdicts: tuple[str, ...]) -> dict[str, str]:
    """By method whether its loss is lower, not told apart or higher than full fine-tuning's, in the words given."""
    lower, higher, _ = (set(part["name"]) for part in told(rows, "full_", lower=True))
    return {name: verdicts[1 - (name in lower) + (name in higher)] for name in rows["name"]}


def _rank_line(row: Mapping[Any, Any], forgotten: pd.DataFrame) -> str:
    line = forgotten[forgotten["line"] == row["line"]].set_index("r")["mean"]
    ends = " to ".join(f"{line[row[end]]:.3f} at r = {row[end]:g}" for end in ("smallest", "largest"))
    difference = statistics.difference_text(row["difference"], row["interval"], row["p_holm"], scale=1, digits=3)
    verdict = "not told apart"
    if pd.isna(row["p_holm"]):
        verdict = "not tested: two seeds that differ are needed"
    elif row["p_holm"] < LEVEL:
        verdict = f"more rank forgets {'more' if row['difference'] > 0 else 'less'}"
    return f"{row['line']}: from {ends} ({difference}): {verdict}."


def layout(data: Data) -> pd.DataFrame:
    """A row a method: what it has learnt, then for each text what it has forgotten, and of losses the difference to
    full."""
    found = by_metric(data)
    rows = found["loss"]
    columns = method_tables.names(rows) | {"lr": rows["lr"].map("{:g}".format)}
    for metric, own in found.items():
        text = metric.removeprefix(FORGETTING)
        title = f"{text}, after − before" if text != metric else f"test {metric}"
        columns[title] = cells.looked_up(own, cells.mean_texts(own), rows, METHOD)
        if not own["main"].any() and reference(own, "full"):
            columns[f"{title}, minus full"] = cells.looked_up(own, minus_texts(own, "full"), rows, METHOD)
    return pd.DataFrame(columns)


def losses_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test loss, and of what is forgotten."""
    return rows[[metrics.of(metric).lower for metric in rows["metric"]]]


def beside_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of what is forgotten, `learnt` being the test loss of the same method, or run, and with their line: that
    of LoRA, or the method."""
    rows = rows.assign(method=rows["line"].where(rows["line"] != "", [naming.title(*key) for key in naming.keys(rows)]))
    keys = [name for name in (*TASK[:2], *METHOD, "seed") if name in rows]
    value = "value" if "value" in rows else "mean"
    loss = rows[rows["metric"] == "loss"][[*keys, value]].rename(columns={value: "learnt"})
    return rows[rows["metric"].str.startswith(FORGETTING)].merge(loss, on=keys)


STUDY = Study(
    scores=language_runs.scored,
    cell=tuning.CELL,
    one_rate=True,
    reads=(SCHEMA.file,),
    tables={"table.csv": table, "ranks.csv": over_ranks},
    page=[
        "# What is forgotten: the base model's loss on other texts, before and after",
        READING,
        pages.sections("## {task} ({model})", findings, pages.table(layout), by=TASK[:2]),
        pages.failed_runs,
    ],
    figures={
        "forgetting.png": method_figures.Methods(
            of=lambda data: losses_alone(data["table.csv"]), runs=lambda data: losses_alone(data.once(scores))
        ),
        "tradeoff.png": marks.Lines(
            x="learnt", line="method", label="test loss (nats a target token)", legend="method; numbers: r",
            log=False, order="r",
            of=lambda data: beside_loss(data["table.csv"]), runs=lambda data: beside_loss(data.once(scores)),
        ),
    },
)  # fmt: skip
