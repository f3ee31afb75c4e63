"""Quality of each set of weight types, a panel for each model and task, a colour for each budget."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures
from analysis.studies.weight_types import sets as weight_sets

MARKERS = "oDs^v"
WIDTH = 0.6  # of what the budgets of one set take, in distances between sets


def draw(table: pd.DataFrame, test: pd.DataFrame, path: Path) -> Path:
    """Mean of each set with the bar of its 95% interval, and a small point for each run: sets by their order, the
    budgets of a set side by side.

    table is of `weight_sets.tabulate`; test has the runs, with the same keys and value.
    """
    places = list(table.groupby(weight_sets.PLACE, sort=False))
    figure, axes = figures.panels(len(places), 1, figures.PAGE_WIDTH, 2.5 * len(places) + 0.2)
    for axis, (key, cells) in zip(axes[:, 0], places, strict=True):
        model, task, metric = key
        _panel(axis, cells, test[(test["model"] == model) & (test["task"] == task)])
        axis.set(title=f"{task} ({model})", ylabel=f"test {metric} (%)")
    axes[-1, 0].set_xlabel("LoRA on")
    figure.supxlabel(figures.interval_note(table["interval"]), fontsize=7)
    return figures.save(figure, path)


def _panel(axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame) -> None:
    sets, budgets = weight_sets.sets_of(cells), sorted(cells["budget"].unique())
    at = {name: place for place, name in enumerate(sets)}
    colours = sns.color_palette("colorblind", n_colors=len(budgets))
    for index, budget in enumerate(budgets):
        shift = WIDTH * ((index + 0.5) / len(budgets) - 0.5)
        means, seeds = cells[cells["budget"] == budget], runs[runs["budget"] == budget]
        style = {"color": colours[index], "linestyle": ""}
        axis.errorbar(
            means["weight_types"].map(at) + shift, 100 * means["mean"], yerr=100 * means["interval"], **style,
            marker=MARKERS[index % len(MARKERS)], markersize=4.5, elinewidth=1, capsize=2, label=f"{budget:,}",
        )  # fmt: skip
        axis.scatter(
            seeds["weight_types"].map(at) + shift + 0.07, 100 * seeds["value"], s=7, color=colours[index], alpha=0.5,
            linewidths=0,
        )  # fmt: skip
    # The runs set the scale: an interval of few seeds would squeeze all else into a line.
    lowest, highest = 100 * runs["value"].min(), 100 * runs["value"].max()
    margin = max(1.0, 0.06 * (highest - lowest))
    axis.set_ylim(lowest - margin, highest + margin)
    axis.set_xlim(-0.6, len(sets) - 0.4)
    axis.set_xticks(np.arange(len(sets)), [_lines(name) for name in sets])
    first = next((place for name, place in at.items() if not weight_sets.is_attention(name)), None)
    if first:
        axis.axvline(first - 0.5, color="0.6", linewidth=0.8, linestyle=":")
    axis.grid(axis="y", linewidth=0.4)
    axis.legend(title="parameters", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _lines(weight_types: str) -> str:
    """The name of a set in lines that are no wider than q+k+v+o."""
    return textwrap.fill(weight_types.replace("+", " +"), 10).replace(" +", "+")
