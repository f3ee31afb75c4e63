"""Quality against the number of trained parameters, a line a family of methods: the paper's Figure 2 and Table 15."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import cells, figures, marks, metrics, naming, pages, tables, tuning
from analysis.kit.data import Data
from analysis.kit.study import Study, arranged
from analysis.kit.tuning import CELL
from analysis.maths import statistics

LINE = ["model", "task", "metric", "line"]
ENDS = ["best", "largest", "best_params", "largest_params"]
PAPER_MODEL = "GPT-3 175B"
PAPER_TASKS = {"mnli_m": "MNLI-m", "wikisql": "WikiSQL"}
PAPER_WEIGHTS = {"rv": "v", "rq=rv": "q+v", "rq=rk=rv=ro": "q+k+v+o"}
UNITS = {"M": 10**6, "B": 10**9}
READING = """\
Quality is the test score in percent: mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives
no interval. A family is a line of the figure: methods of which only the size differs. The paper's numbers are those of
its Table 15: {paper}, other tasks, single numbers on validation data: compare the shape of a line, not its level.
{counted}"""
FALLING = """\
Best: the size with the best mean on validation data, over the seeds that all sizes have, so that the test data do not
choose it (for the paper: in its table). Difference: largest minus best, in points on test data, paired by seed, ±
half-width of its 95% interval; p is of the paired t-test, by Holm's method corrected for the families of a task that
are tested."""


def with_lines(runs: pd.DataFrame) -> pd.DataFrame:
    """runs with `line`: the label and, for LoRA alone, the weight types, which make lines of their own."""
    lora = runs["label"] + " " + runs["weight_types"].fillna("")
    return runs.assign(line=runs["label"].where(runs["method"] != "lora", lora))


def line_order(points: pd.DataFrame) -> list[str]:
    """The lines of a frame with label and line: methods of one size, LoRA by its weight types, then the others."""
    labels, single = dict(zip(points["line"], points["label"], strict=True)), (*figures.SINGLE, "head_only")
    place = {name: (label not in single, label != "lora", naming.order(label)) for name, label in labels.items()}
    return sorted(labels, key=lambda name: (place[name], name.count("+"), name))


def points(data: Data) -> pd.DataFrame:
    """Our points, of `tabulate`, and the paper's below, told apart by `source`."""
    return cells.beside_paper(tabulate(data.scores), paper_points())


def tabulate(test: pd.DataFrame) -> pd.DataFrame:
    """A row for each of CELL: line, quality, and `size`, the trained parameters, without the head's where the study
    has a run of head_only on the task (without_head is NaN where it has none)."""
    table = cells.summary(test, [*CELL, "line"])
    counts = {"trainable_params": "max", "without_head": "max", "lr": "first"}
    sizes = test.assign(without_head=tables.without_head(test)).groupby(CELL).agg(counts)
    table = table.merge(sizes, on=CELL)
    table = table.assign(size=table["without_head"].fillna(table["trainable_params"]))
    places = {name: place for place, name in enumerate(line_order(table))}
    order = table.assign(place=table["line"].map(places)).sort_values(["model", "task", "place", "size"], kind="stable")
    return order.drop(columns="place").reset_index(drop=True)


def validation(final: pd.DataFrame) -> pd.DataFrame:
    """What the best size is chosen by: the validation scores of all runs, for who chooses sees a collapse, too."""
    return final[final["main"] & (final["split"] == "validation")]


def falls(final: pd.DataFrame) -> pd.DataFrame:
    """For each line of two or more sizes what its largest is worth beside its best: LINE, best, largest, best_params,
    largest_params, and the fields of `maths.statistics.Paired` and p_holm for largest minus best on test data.

    final holds scores of both splits. The best is that on validation data, over the seeds that all sizes have. Where it
    is the largest, nothing falls and nothing is tested.
    """
    rows = []
    for key, line in final.groupby(LINE, sort=False):
        sizes = line.groupby("settings", sort=False)["trainable_params"].max()
        if len(sizes) < 2:
            continue
        means = statistics.evenly(line[line["split"] == "validation"], "settings")
        lower = metrics.of(line["metric"].iloc[0]).lower
        best, largest = str(means.idxmin() if lower else means.idxmax()), str(sizes.idxmax())
        test = line[line["split"] == "test"].set_index("seed").groupby("settings")["value"]
        ends = test.get_group(largest), test.get_group(best)
        found = statistics.NOTHING if best == largest else statistics.paired(*ends)
        rows.append((*key, best, largest, sizes[best], sizes[largest], *found))
    table = pd.DataFrame(rows, columns=[*LINE, *ENDS, *statistics.Paired._fields])
    return table.assign(p_holm=table.groupby(LINE[:-1], sort=False)["p"].transform(statistics.holm))


def paper_points() -> pd.DataFrame:
    """The paper's Table 15 in the columns of `tabulate`: a row a task and point; values are fractions, without n."""
    table = cells.paper("table15_tradeoff").rename(columns={"method": "label", "hyperparameters": "settings"})
    table["size"] = [float(count[:-1]) * UNITS[count[-1]] for count in table["trainable_params"]]
    weights = table["settings"].str.rpartition("=")[0].map(PAPER_WEIGHTS)
    table["line"] = table["label"].where(table["label"] != "lora", "lora " + weights.fillna(""))
    table["settings"] = table["settings"].where(table["settings"] != "-", "")
    names = ["label", "settings", "line", "size"]
    table = table.rename(columns=PAPER_TASKS).melt(names, [*PAPER_TASKS.values()], var_name="task", value_name="mean")
    return table.assign(mean=table["mean"] / 100, model=PAPER_MODEL, metric="accuracy")


def paper_falls(paper: pd.DataFrame) -> pd.DataFrame:
    """The columns of `falls` for the paper's points: differences of single numbers, so neither interval nor p."""
    rows = []
    for key, line in paper.groupby(LINE, sort=False):
        if len(line) < 2:
            continue
        best, largest = (line.iloc[int(line[by].to_numpy().argmax())] for by in ("mean", "size"))
        difference = np.nan if best.equals(largest) else largest["mean"] - best["mean"]
        rows.append((*key, best["settings"], largest["settings"], best["size"], largest["size"], difference))
    return pd.DataFrame(rows, columns=[*LINE, *ENDS, "difference"])


def both_falls(final: pd.DataFrame) -> pd.DataFrame:
    """Our lines, of `falls`, and the paper's below, told apart by `source`."""
    return cells.beside_paper(falls(final), paper_falls(paper_points()))


def counted(data: Data) -> str:
    """A sentence on whose parameters are counted."""
    ours = of(data, "ours")
    unknown = ours[ours["without_head"].isna()][["model", "task"]].drop_duplicates()
    if unknown.empty:
        return "Parameters are those trained, less the head's, which head_only trains alone."
    return f"Parameters include the head's on {', '.join(unknown['task'])}, where the study has no run of head_only."


def of(data: Data, source: str) -> pd.DataFrame:
    """The points of a source, ours or paper."""
    return data["table.csv"].query("source == @source")


def rate_lines(ours: pd.DataFrame, rates: pd.DataFrame) -> list[str]:
    """The learning rates that each family's points were trained with, and how they were chosen, as list items."""
    lines = []
    for (_, task), points in ours.groupby(["model", "task"], sort=False):
        families = [
            f"{line} {', '.join(f'{lr:g}' for lr in sorted(sizes['lr'].unique()))}"
            for line, sizes in points.groupby("line", sort=False)
        ]
        lines.append(f"- Learning rates on {task}: {'; '.join(families)}.")
    if rates.empty:
        return [*lines, "- None of them was tuned in this study."]
    found = tuning.outcomes(rates)
    edge = [f"{naming.title(row.label, row.settings)} on {row.task}" for row in found[found["at_edge"]].itertuples()]
    return [
        *lines,
        f"- Chosen on validation data with the first seed; {found['tried'].sum()} tuning runs at {len(found)} of these "
        f"points (learning_rates.csv). Best rate at the edge of those tried: {', '.join(edge) or 'none'}.",
    ]


def falls_text(fallen: pd.DataFrame, head: str, verdict: Callable[[Mapping[Any, Any]], str]) -> pd.DataFrame:
    """The rows of `falls` as text, ours and the paper's, told apart by `source`; `verdict` of each is under `head`."""
    rows = fallen.to_dict("records")
    several = fallen.groupby(["model", "task"])["metric"].transform("nunique") > 1
    return pd.DataFrame(
        {
            "source": fallen["source"] + ", " + fallen["model"],
            "task": fallen["task"].where(~several, fallen["task"] + " " + fallen["metric"]),
            "family": fallen["line"],
            "best": fallen["best"],
            "largest": fallen["largest"],
            "largest − best": [_difference(row) for row in rows],
            head: [verdict(row) for row in rows],
        }
    )


def _difference(row: Mapping[Any, Any]) -> str | None:
    if pd.isna(row["difference"]):
        return None
    unit = metrics.of(row["metric"])
    text = statistics.difference_text(row["difference"], row["interval"], row["p_holm"], unit.scale, unit.digits)
    return text if pd.isna(row["pairs"]) else f"{text} ({statistics.pairs_text(row['pairs'])})"


def is_worse(row: Mapping[Any, Any]) -> bool:
    """Whether the largest of a row of `falls` is worse than the best."""
    return bool((row["difference"] < 0) != metrics.of(row["metric"]).lower)


def _verdict(row: Mapping[Any, Any]) -> str:
    if row["best"] == row["largest"]:
        return "no: the largest is the best"
    if row["source"] == "paper":
        return "lower, by single numbers" if is_worse(row) else "no"
    if pd.isna(row["p_holm"]):
        return "not tested: two seeds that differ are needed"
    if row["p_holm"] < 0.05:
        return "yes" if is_worse(row) else "no: the largest is better on test data"
    return "not told apart"


def _text(points: pd.DataFrame) -> pd.DataFrame:
    """A row a point, a column a task."""
    keys = ["model", "line", "settings"]
    rows = points.drop_duplicates(keys)
    about = {
        "model": rows["model"],
        "family": rows["line"],
        "settings": rows["settings"].replace("", None),
        "parameters": rows["size"].map("{:,.0f}".format),
        "log10": [f"{np.log10(size):.2f}" if size else None for size in rows["size"]],
    }
    return pd.DataFrame(about | cells.across(rows, points, ["task", "metric"], keys, head=" ".join))


def all_points(*more: pages.Block) -> list[pages.Block]:
    """The blocks that have every point and its learning rate, `more`, and the paper's points."""
    return [
        pages.table(lambda data: _text(of(data, "ours"))),
        pages.lines(lambda data: rate_lines(of(data, "ours"), data.rates), *more),
        f"The paper's, {PAPER_MODEL}:",
        pages.table(lambda data: _text(of(data, "paper"))),
    ]


def sized(data: Data) -> pd.DataFrame:
    """The points but those of the head alone, which have no size."""
    found = tabulate(data.scores)
    head = found["without_head"].isna().map({True: "with the head's", False: "without the head's"})
    return found.assign(about="trained parameters, " + head)[found["label"] != "head_only"]


def single(data: Data) -> pd.DataFrame:
    """The runs, with their sizes."""
    return data.scores.merge(sized(data)[[*CELL, "size"]], on=CELL)


def alone(data: Data) -> dict[str, float]:
    """What the head alone reaches in a task, if there is a run of it."""
    found = data.scores[data.scores["label"] == "head_only"]
    return {} if found.empty else {"head_only": found["value"].mean()}


STUDY = Study(
    runs=lambda *folders: with_lines(arranged(*folders)),
    cell=CELL,
    one_rate=True,
    tables={
        "table.csv": points,
        "falls.csv": lambda data: both_falls(pd.concat([validation(data.final), data.scores])),
        "learning_rates.csv": tuning.tried,
    },
    page=[
        "# Quality against trained parameters (the paper's Figure 2 and Table 15)",
        pages.text(READING, counted=counted, paper=PAPER_MODEL),
        "## Does quality fall as parameters grow?",
        FALLING,
        pages.table(lambda data: falls_text(data["falls.csv"], "falls?", _verdict)),
        "## All points",
        *all_points(pages.text("- {head}", head=pages.head_rate)),
        pages.failed_runs,
    ],
    figures={
        "scaling.png": marks.Lines(
            x="size", line="line", label="about", legend="family", of=sized, runs=single, across=alone,
            paper=lambda: paper_points().assign(about="trained parameters"),
        )
    },
)  # fmt: skip
