"""The drawings of a study that are data: which column is where. A figure that is none of these is a function.

All have the style of `kit.figures`: means with bars of their 95% interval, a small point for each run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures, metrics
from analysis.kit.cells import means
from analysis.kit.data import Data
from analysis.kit.pages import TASK

MARKERS = "oDs^v"


@dataclass(frozen=True)
class Lines:
    """A metric against `x`, a line for each value of `line`, a panel for each model, task and metric.

    label: of the x axis, or a column of the means that has it; legend: above the names of the lines. of: gives the
    means, with `x`, `line` and TASK; runs: the single runs, with these too. paper: means of others, in panels of their
    own. across: levels that a dotted line shows in a panel, by name, from the data of that place. In a panel whose
    means have a `shift`, that is what was taken from the lines that are named paper: a second axis has their values.
    by: TASK, and columns that make several panels of one; log: whether the x axis is. order: a column in whose order
    points are joined, and which stands beside them; the default is x.
    """

    x: str
    line: str
    label: str
    legend: str
    of: Callable[[Data], pd.DataFrame] = means
    runs: Callable[[Data], pd.DataFrame] = lambda data: data.scores
    paper: Callable[[], pd.DataFrame] | None = None
    across: Callable[[Data], Mapping[str, float]] | None = None
    by: Sequence[str] = tuple(TASK)
    log: bool = True
    columns: int = 3
    order: str | None = None

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws the study's scores to path."""
        ours, runs = self.of(data), self.runs(data)
        every = pd.concat([ours, self.paper()]) if self.paper else ours
        panels = [[*frame.groupby(list(self.by), sort=False)] for frame in (ours, every[len(ours) :])]
        columns = min(max(map(len, panels)), self.columns)
        heights = [-(-len(part) // columns) for part in panels]
        width = figures.PAGE_WIDTH if columns > 1 else 5.0
        figure, axes = figures.panels(sum(heights), columns, width, 2.9 * sum(heights))
        names = list(dict.fromkeys(every[self.line]))
        for axis, (place, cells) in figures.fill(axes[: heights[0]].flat, panels[0]):
            self._panel(axis, cells, at(runs, place, self.by), names, place)
            if self.across:
                self._levels(axis, self.across(data.at(dict(zip(TASK, place, strict=False)))), str(place[2]))
        for axis, (place, cells) in figures.fill(axes[heights[0] :].flat, panels[1]):
            self._panel(axis, cells, runs[:0], names, place)
            axis.set(title=f"paper: {axis.get_title()}", ylabel=axis.get_ylabel().removeprefix("test "))
        handles, labels = named(axes)
        above = len(labels) > 6 or columns > 2
        place = (
            {"loc": "outside upper center", "ncols": min(len(labels), 5)} if above else {"loc": "outside right upper"}
        )
        figure.legend(handles, labels, title=self.legend, frameon=False, **place)
        return finish(figure, ours.loc[ours["n"].notna(), "interval"], runs["value"], path)

    def _panel(
        self, axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str], place: tuple[Any, ...]
    ) -> None:
        model, task, metric = place[:3]
        unit = metrics.of(str(metric))
        figures.quality_lines(axis, runs, cells, self.x, self.line, names, unit.scale, self.log, self.order)
        label = cells[self.label].iloc[0] if self.label in cells else self.label
        axis.set(title=f"{task} ({model})", xlabel=label, ylabel=unit.axis)
        limit(axis, runs["value"] if len(runs) else cells["mean"], 0.1, unit.scale)
        if "shift" in cells and cells["shift"].notna().any():
            second_axis(axis.secondary_yaxis, "right", cells["shift"].max())

    def _levels(self, axis: Axes, levels: Mapping[str, float], metric: str) -> None:
        for style, (name, level) in zip(("--", ":"), levels.items(), strict=False):
            y = metrics.of(metric).scale * level
            axis.axhline(y, color="0.4", linestyle=style, linewidth=1, label=name, zorder=0)


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
    of: Callable[[Data], pd.DataFrame] = means
    width: float = 0.6  # of what the values of `side` take at one x, in distances between these

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws the study's scores to path."""
        summary = self.of(data)
        places = list(summary.groupby(TASK, sort=False))
        figure, axes = figures.panels(len(places), 1, figures.PAGE_WIDTH, 2.5 * len(places) + 0.2)
        for axis, (place, cells) in zip(axes[:, 0], places, strict=True):
            metric = metrics.of(str(place[2]))
            self._panel(axis, cells, at(data.scores, place), metric.scale)
            axis.set(title=f"{place[1]} ({place[0]})", ylabel=metric.axis)
        axes[-1, 0].set_xlabel(self.label)
        return finish(figure, summary["interval"], data.scores["value"], path)

    def _panel(self, axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame, scale: float) -> None:
        names, sides = sorted(cells[self.x].unique(), key=self.order), sorted(cells[self.side].unique())
        at = {name: place for place, name in enumerate(names)}
        colours = sns.color_palette("colorblind", n_colors=len(sides))
        for index, side in enumerate(sides):
            shift = self.width * ((index + 0.5) / len(sides) - 0.5)
            mean, seeds = cells[cells[self.side] == side], runs[runs[self.side] == side]
            axis.errorbar(
                mean[self.x].map(at) + shift, scale * mean["mean"], yerr=scale * mean["interval"],
                color=colours[index], linestyle="", marker=MARKERS[index % len(MARKERS)], markersize=4.5, elinewidth=1,
                capsize=2, label=f"{side:,}",
            )  # fmt: skip
            axis.scatter(
                seeds[self.x].map(at) + shift + 0.07, scale * seeds["value"], s=7, color=colours[index], alpha=0.5,
                linewidths=0,
            )  # fmt: skip
        limit(axis, runs["value"], 0.06, scale)
        axis.set_xlim(-0.6, len(names) - 0.4)
        axis.set_xticks(range(len(names)), [self.tick(name) for name in names])
        first = next((place for name, place in at.items() if self.divide and not self.divide(name)), None)
        if first:
            axis.axvline(first - 0.5, color="0.6", linewidth=0.8, linestyle=":")
        axis.grid(axis="y", linewidth=0.4)
        axis.legend(title=self.legend, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def limit(axis: Axes, values: pd.Series, share: float, scale: float = 100) -> None:
    """The scale of y, in percent unless there is another, from the lowest to the highest of the runs' values and a
    margin: a share of that, or 0.01. Runs set it: an interval over three seeds of which one failed would squeeze all
    else into a line."""
    if values.isna().all():  # every run has collapsed
        return
    low, high = scale * values.min(), scale * values.max()
    margin = max(0.01 * scale, share * (high - low))
    axis.set_ylim(low - margin, high + margin)


def named(axes: Any) -> tuple[list[Any], list[str]]:
    """Handles and names of all that is named in the panels, each name once: what a legend of the figure takes."""
    found = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)


def second_axis(add: Callable[..., Any], side: str, shift: float) -> None:
    """A second axis with what values were before `shift` was taken from them; add: an axis' secondary_xaxis or
    secondary_yaxis."""
    add(side, functions=(lambda x: x + shift, lambda x: x - shift)).tick_params(colors=figures.GREY, length=2, pad=1)


def finish(figure: Figure, intervals: pd.Series, scores: pd.Series, path: Path) -> Path:
    """Says below the figure what its bars are, and which runs it is without, and writes it; scores: of all runs."""
    figure.supxlabel(figures.interval_note(intervals, scores), fontsize=7)
    return figures.save(figure, path)


def at(frame: pd.DataFrame, place: Sequence[Any], by: Sequence[str] = TASK) -> pd.DataFrame:
    """The rows of a model, task and metric, or of other values of `by`."""
    return frame[(frame[list(by)] == list(place)).all(axis=1)]
