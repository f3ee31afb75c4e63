"""qlora.png: quality after training, and what the untrained base has lost, against the bits of a base weight."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.kit import figures
from analysis.kit.method_tables import TASK
from analysis.studies.qlora.runs import NONE
from analysis.studies.qlora.tables import PLAIN

MARKERS = "osD^v"


def draw(table: pd.DataFrame, scores: pd.DataFrame, base: pd.DataFrame, path: Path) -> Path:
    """A row of two panels for each model and task: the main test metric with 95% intervals and single runs, a colour
    for each start and rank; and perplexity, or the hidden error of an encoder.

    The frames are of `studies.qlora.tables`, scores with the columns of its `tabulate`'s CELL and value.
    """
    table = table[table["main"]].assign(line=_lines(table))
    scores = scores[scores["main"]].merge(table[[*TASK, "label", "settings", "bits", "line"]])
    places = list(table.groupby(TASK, sort=False))
    figure, axes = figures.panels(len(places), 2, figures.PAGE_WIDTH, 2.7 * len(places) + 0.3)
    for (left, right), ((model, task, metric), cells) in zip(axes, places, strict=True):
        runs = scores[(scores[TASK] == [model, task, metric]).all(axis=1)]
        _quality(left, cells, runs)
        left.set(title=f"{task} ({model})", ylabel=f"test {metric} (%)")
        _untrained(right, base[base["model"] == model])
        right.set_title(f"before training ({model})")
        for axis in (left, right):
            _bits(axis, cells[["quantization", "bits"]].drop_duplicates())
    figure.supxlabel(figures.interval_note(table["interval"]), fontsize=7)
    return figures.save(figure, path)


def _lines(table: pd.DataFrame) -> pd.Series:
    starts = table["label"].where(table["label"] != PLAIN, "LoRA").replace("loftq", "LoftQ")
    return starts + ", r = " + table["r"].map("{:g}".format)


def _quality(axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame) -> None:
    names = list(dict.fromkeys(cells["line"]))
    for index, (line, colour) in enumerate(zip(names, sns.color_palette(n_colors=len(names)), strict=True)):
        means, seeds = cells[cells["line"] == line], runs[runs["line"] == line]
        dodge = 2 ** (0.08 * (index - (len(names) - 1) / 2))
        axis.errorbar(
            means["bits"] * dodge, 100 * means["mean"], yerr=100 * means["interval"], color=colour, label=line,
            marker=MARKERS[index % len(MARKERS)], markersize=4.5, linewidth=1.0, elinewidth=1, capsize=2,
        )  # fmt: skip
        axis.scatter(seeds["bits"] * dodge, 100 * seeds["value"], s=7, color=colour, alpha=0.45, linewidths=0)
    lowest, highest = 100 * runs["value"].min(), 100 * runs["value"].max()
    margin = max(1.0, 0.06 * (highest - lowest))
    axis.set_ylim(lowest - margin, highest + margin)  # an interval of few seeds would squeeze all else into a line
    axis.legend(frameon=False)


def _untrained(axis: Axes, base: pd.DataFrame) -> None:
    columns = [column for column in base.columns if column.startswith("loss_") and base[column].notna().any()]
    if columns:
        axis.set(yscale="log", ylabel="perplexity")
    else:
        columns = [column for column in base.columns if column.startswith("hidden_error_")]
        axis.set_ylabel("error of the last hidden states")
    for column, colour in zip(columns, sns.color_palette(n_colors=len(columns)), strict=True):
        values = np.exp(base[column]) if column.startswith("loss_") else base[column].fillna(0.0)
        text = column.removeprefix("loss_").removeprefix("hidden_error_")
        plain = base["start"] == ""
        axis.plot(
            base["bits"][plain], values[plain], color=colour, marker="o", markersize=4.5, linewidth=1.0, label=text
        )
        if not plain.all():
            style = {"color": colour, "marker": "s", "facecolors": "none", "s": 22}
            axis.scatter(base["bits"][~plain], values[~plain], **style, label=f"{text}, LoftQ's starts")
    axis.legend(frameon=False)


def _bits(axis: Axes, kinds: pd.DataFrame) -> None:
    """The x axis: bits of a base weight from many to few, named by their quantisation."""
    names = ["not\nquantised" if kind == NONE else kind for kind in kinds["quantization"]]
    axis.set_xscale("log", base=2)
    axis.set_xticks(kinds["bits"], [f"{name}\n{bits:.3g}" for name, bits in zip(names, kinds["bits"], strict=True)])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.invert_xaxis()
    axis.set_xlabel("bits of a base weight")
    axis.grid(axis="y", linewidth=0.4)
