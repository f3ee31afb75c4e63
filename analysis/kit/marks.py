"""The drawings of a study that are data: which column is where. A figure that is none of these is a function.

All have the style of `kit.figures`: means with bars of their 95% interval, a small point for each run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures
from analysis.kit.cells import means
from analysis.kit.data import Data

TASK = ("model", "task", "metric")
MARKERS = "oDs^v"


@dataclass(frozen=True)
class Lines:
    """Quality against `x` on a log2 axis, a line for each value of `line`, a panel for each model and task.

    label: of the x axis; legend: above the names of the lines; of: gives the means, `x`, `line` and `by` among them.
    """

    x: str
    line: str
    label: str
    legend: str
    by: Sequence[str] = TASK
    of: Callable[[Data], pd.DataFrame] = means

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws the study's scores to path."""
        summary = self.of(data)
        places = list(summary.groupby(list(self.by), sort=False))
        names = list(dict.fromkeys(summary[self.line]))
        columns = min(len(places), 3)
        rows = -(-len(places) // columns)
        figure, axes = figures.panels(rows, columns, figures.PAGE_WIDTH if columns > 1 else 5.0, 2.9 * rows)
        for axis, ((model, task, metric), cells) in figures.fill(axes.flat, places):
            seeds = _of(data.scores, model, task)
            figures.quality_lines(axis, seeds, cells, self.x, self.line, names)
            axis.set(title=f"{task} ({model})", xlabel=self.label, ylabel=f"test {metric} (%)")
            limit(axis, seeds["value"], 0.1)
        handles, labels = named(axes)
        figure.legend(handles, labels, title=self.legend, loc="outside right upper", frameon=False)
        return finish(figure, summary["interval"], path)


@dataclass(frozen=True)
class Dots:
    """Quality of each value of `x`, in the order of `order`; values of `side` beside one another, a colour and a marker
    each; a panel for each model and task.

    label: of the x axis; legend: above the values of `side`; tick: the name of a value on the axis; divide: true for
    values that come first, before a dotted line. of: gives the means.
    """

    x: str
    side: str
    label: str
    legend: str
    order: Callable[[str], Any]
    tick: Callable[[str], str] = str
    divide: Callable[[str], bool] | None = None
    by: Sequence[str] = TASK
    of: Callable[[Data], pd.DataFrame] = means
    width: float = 0.6  # of what the values of `side` take at one x, in distances between these

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws the study's scores to path."""
        summary = self.of(data)
        places = list(summary.groupby(list(self.by), sort=False))
        figure, axes = figures.panels(len(places), 1, figures.PAGE_WIDTH, 2.5 * len(places) + 0.2)
        for axis, ((model, task, metric), cells) in zip(axes[:, 0], places, strict=True):
            self._panel(axis, cells, _of(data.scores, model, task))
            axis.set(title=f"{task} ({model})", ylabel=f"test {metric} (%)")
        axes[-1, 0].set_xlabel(self.label)
        return finish(figure, summary["interval"], path)

    def _panel(self, axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame) -> None:
        names, sides = sorted(cells[self.x].unique(), key=self.order), sorted(cells[self.side].unique())
        at = {name: place for place, name in enumerate(names)}
        colours = sns.color_palette("colorblind", n_colors=len(sides))
        for index, side in enumerate(sides):
            shift = self.width * ((index + 0.5) / len(sides) - 0.5)
            mean, seeds = cells[cells[self.side] == side], runs[runs[self.side] == side]
            axis.errorbar(
                mean[self.x].map(at) + shift, 100 * mean["mean"], yerr=100 * mean["interval"], color=colours[index],
                linestyle="", marker=MARKERS[index % len(MARKERS)], markersize=4.5, elinewidth=1, capsize=2,
                label=f"{side:,}",
            )  # fmt: skip
            axis.scatter(
                seeds[self.x].map(at) + shift + 0.07, 100 * seeds["value"], s=7, color=colours[index], alpha=0.5,
                linewidths=0,
            )  # fmt: skip
        limit(axis, runs["value"], 0.06)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_xticks(range(len(names)), [self.tick(name) for name in names])
        first = next((place for name, place in at.items() if self.divide and not self.divide(name)), None)
        if first:
            axis.axvline(first - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        axis.grid(axis="y", linewidth=0.4)
        axis.legend(title=self.legend, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def limit(axis: Axes, values: pd.Series, share: float, least: float = 1.0) -> None:
    """The scale of y, in percent, from the lowest to the highest of the runs' values and a margin: a share of that, or
    `least`. Runs set it: an interval over three seeds of which one failed would squeeze all else into a line."""
    low, high = 100 * values.min(), 100 * values.max()
    margin = max(least, share * (high - low))
    axis.set_ylim(low - margin, high + margin)


def named(axes: Any) -> tuple[list[Any], list[str]]:
    """Handles and names of all that is named in the panels, each name once: what a legend of the figure takes."""
    found = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)


def finish(figure: Figure, intervals: pd.Series, path: Path) -> Path:
    """Says below the figure what its bars are, and writes it."""
    figure.supxlabel(figures.interval_note(intervals), fontsize=7)
    return figures.save(figure, path)


def _of(runs: pd.DataFrame, model: Hashable, task: Hashable) -> pd.DataFrame:
    return runs[(runs["model"] == model) & (runs["task"] == task)]
