"""table.md of the study of forgetting: what was found, in words and in a table of all methods."""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.kit import naming, tables, task_tables
from analysis.kit.cells import mean_texts
from analysis.kit.compare import METHOD, minus_texts, reference
from analysis.kit.generation_report import caution
from analysis.kit.method_tables import TASK
from analysis.maths import statistics

FORGETTING = "forgetting_"  # before a text's name: the metric
DIGITS = 3
READING = """\
Forgetting is the loss on a text after training minus that of the base model: nats a token, over windows that are the
same for all; above 0 is worse. It is measured with what the method has added in place. A prefix comes before each
window; infix tokens, which follow a context, come after it and so change nothing. Learnt is what the test data of the
task show: the loss in nats a target token, lower is better, and the task's own metric in percent. All are means over
seeds ± half-width of the 95% Student-t interval (number of seeds); one seed gives no interval and no test. Differences
to full fine-tuning are paired by seed, ± half-width of their own 95% interval; p is of the paired t-test, by Holm's
method corrected for all methods compared in one column, and `*` marks p < 0.05. Seeds vary the start and the order of
training alone, not the texts."""


def report(
    table: pd.DataFrame, ranks: pd.DataFrame, losses: pd.DataFrame, scores: pd.DataFrame, failures: list[str]
) -> str:
    """table.md: what was found, and a table of all methods, for each model and task."""
    lines = ["# What is forgotten: the base model's loss on other texts, before and after", "", READING]
    for (model, task), cells in table.groupby(TASK[:2], sort=False):
        here = (scores["model"] == model) & (scores["task"] == task)
        own = losses[losses["run_id"].isin(scores.loc[here, "run_id"])]
        found = ranks[(ranks["model"] == model) & (ranks["task"] == task)]
        lines += ["", f"## {task} ({model})", "", *findings(cells, found, own), "", tables.markdown(layout(cells))]
    if failures:
        lines += ["", "## Failed runs", "", *failures]
    return "\n".join(lines) + "\n"


def _texts(cells: pd.DataFrame) -> list[str]:
    metrics = cells["metric"].unique()
    return [metric.removeprefix(FORGETTING) for metric in metrics if metric.startswith(FORGETTING)]


def _named(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    found = cells[cells["metric"] == metric]
    return found.assign(name=[naming.title(*key) for key in naming.keys(found)])


def findings(cells: pd.DataFrame, ranks: pd.DataFrame, losses: pd.DataFrame) -> list[str]:
    """What the methods of a task come to, from their numbers and corrected tests, as markdown list items."""
    learnt = _named(cells, "loss")
    lines = [f"- {caution(learnt['n'], len(learnt) - 1)}"]
    for text in _texts(cells):
        forgotten = _named(cells, FORGETTING + text)
        about = losses[losses["text"] == text].iloc[0]
        windows = f"{about['windows']} windows of {about['tokens']} tokens"
        lines.append(f"- **{text}** ({windows}): the base model's loss is {about['loss_before']:.{DIGITS}f}.")
        lines += [f"  - {line}" for line in _verdicts(forgotten, learnt)]
        for row in ranks[ranks["metric"] == FORGETTING + text].to_dict("records"):
            lines.append(f"  - {_rank_line(row, forgotten)}")
    return lines


def _verdicts(forgotten: pd.DataFrame, learnt: pd.DataFrame) -> list[str]:
    """On one text: who forgets, who forgets and learns less than full fine-tuning, and who is behind nobody."""
    lines = []
    p = forgotten["zero_p_holm"]
    if p.notna().any():
        clear, up = p < 0.05, forgotten["mean"] > 0
        lines.append(
            f"By {p.notna().sum()} corrected tests the loss rises with {_names(forgotten[clear & up])}; it falls with "
            f"{_names(forgotten[clear & ~up])}; not told apart from 0 with {_names(forgotten[~clear])}."
        )
    base = reference(learnt, "full")
    if base is None:
        lines.append("No run of full: nothing is compared with it.")
    elif not forgotten.get("full_p_holm", pd.Series(dtype=float)).notna().any():
        lines.append("Against full: no test, which takes two seeds that both have.")
    else:
        lines.append(f"Against full, by corrected tests: {_beside_full(forgotten, learnt)}.")
    both = forgotten.merge(learnt[[*METHOD, "mean"]], on=METHOD, suffixes=("", "_loss"))
    behind = [
        ((both["mean"] < forgotten_mean) & (both["mean_loss"] < loss)).any()
        for forgotten_mean, loss in zip(both["mean"], both["mean_loss"], strict=True)
    ]
    front = _names(both[[not other for other in behind]])
    return [
        *lines,
        f"By their means alone, no other is better on both counts, forgetting and test loss, than: {front}.",
    ]


def _beside_full(forgotten: pd.DataFrame, learnt: pd.DataFrame) -> str:
    """The methods in groups: what the tests say of their forgetting and of their learning beside full fine-tuning's."""
    both = forgotten.merge(learnt, on=METHOD, suffixes=("", "_loss"))
    others = both[both["label"] != "full"]
    forgets = [_side(row, "", ("forgets less", "forgets more")) for row in others.to_dict("records")]
    learns = [_side(row, "_loss", ("learns more", "learns less")) for row in others.to_dict("records")]
    groups: dict[tuple[str, str], list[str]] = {}
    for name, forgetting, learning in zip(others["name"], forgets, learns, strict=True):
        groups.setdefault((forgetting, learning), []).append(name)
    order = itertools.product(
        ("forgets less", "forgetting not told apart", "forgets more"),
        ("learns less", "learning not told apart", "learns more"),
    )
    return "; ".join(f"{' and '.join(pair)}: {', '.join(groups[pair])}" for pair in order if pair in groups)


def _side(row: Mapping[Any, Any], suffix: str, verdicts: tuple[str, str]) -> str:
    p, difference = row[f"full_p_holm{suffix}"], row[f"full_difference{suffix}"]
    if not p < 0.05:
        return "learning not told apart" if suffix else "forgetting not told apart"
    return verdicts[0] if difference < 0 else verdicts[1]


def _rank_line(row: Mapping[Any, Any], forgotten: pd.DataFrame) -> str:
    line = forgotten[forgotten["line"] == row["line"]].set_index("r")["mean"]
    ends = [f"{line[row[end]]:.{DIGITS}f} at r = {row[end]:g}" for end in ("smallest", "largest")]
    difference = statistics.difference_text(row["difference"], row["interval"], row["p_holm"], scale=1, digits=DIGITS)
    if pd.isna(row["p_holm"]):
        verdict = "not tested: two seeds that differ are needed"
    elif row["p_holm"] >= 0.05:
        verdict = "not told apart"
    else:
        verdict = "more rank forgets more" if row["difference"] > 0 else "more rank forgets less"
    return f"{row['line']}: from {' to '.join(ends)} ({difference}): {verdict}."


def _names(cells: pd.DataFrame) -> str:
    return ", ".join(cells["name"]) or "none"


def layout(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a method: what it has learnt, then for each text what it has forgotten, and the difference to full."""
    rows = cells[cells["metric"] == "loss"]
    columns = task_tables.names(rows) | {"lr": rows["lr"].map("{:g}".format)}
    for metric in cells.loc[cells["main"], "metric"].unique():
        found = cells[cells["metric"] == metric]
        columns[f"test {metric}"] = task_tables.looked_up(found, mean_texts(found), rows, METHOD)
    for metric in ("loss", *(FORGETTING + text for text in _texts(cells))):
        found = cells[cells["metric"] == metric]
        title = "test loss" if metric == "loss" else f"{metric.removeprefix(FORGETTING)}, after − before"
        columns[title] = task_tables.looked_up(found, mean_texts(found, 1, DIGITS), rows, METHOD)
        if reference(found, "full"):
            texts = minus_texts(found, "full", 1, DIGITS)
            columns[f"{title}, minus full"] = task_tables.looked_up(found, texts, rows, METHOD)
    return pd.DataFrame(columns)
