"""Drawing helpers shared by the studies: one theme, panels, axes, and quality against a size."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Item = TypeVar("Item")
SINGLE = {"full": "*", "bitfit": "X", "ft_top2": "P"}  # in black
PAPER = "paper"  # begins the name of a line that is the paper's
GREY = "0.35"
MOST_TICKS, MANY = 6, 12  # sizes of a log axis: how many are labelled, and how many are too many
PAGE_WIDTH = 7.5  # inches; every font below is in points at this width
DOTS: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "elinewidth": 0.9, "capsize": 1.5}  # of axis.errorbar
sns.set_theme(context="paper", style="ticks", palette="colorblind", rc={
    "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7.5, "legend.title_fontsize": 7.5, "figure.titlesize": 9.5, "savefig.dpi": 200,
})  # fmt: skip


def panels(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure (inches) of rows x columns axes, set out so that labels do not overlap; grid: as of plt.subplots."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **grid)


def fill(axes: Iterable[Axes], items: Iterable[Item]) -> Iterator[tuple[Axes, Item]]:
    """Each of the items with axes of its own, in order. The axes that are left are switched off."""
    places = iter(axes)
    for item, axis in zip(items, places, strict=False):
        yield axis, item
    for axis in places:
        axis.axis("off")


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure and frees it; returns the path."""
    figure.savefig(path)
    plt.close(figure)
    return path


def file_name(model: str) -> str:
    """A model's name, which may be a path, as part of a file's."""
    return model.strip("./").replace("/", "_")


def interval_note(intervals: pd.Series, scores: pd.Series) -> str:
    """What the bars and small points of a figure are; intervals are NaN where there is one seed, and the scores of runs
    that have collapsed."""
    apart = "; without collapsed runs" if scores.isna().any() else ""
    if intervals.isna().all():
        return f"1 seed: no interval{apart}"
    note = "bars: 95% Student-t interval over seeds, cut at the panel's edge; small points: single runs"
    return f"{note}; no bar: 1 seed, no interval{apart}" if intervals.isna().any() else f"{note}{apart}"


def layer_axis(axis: Axes, layers: Sequence[str]) -> None:
    """The x axis of a panel along the layers, which are at 0, 1, …: about eight of them are labelled."""
    step = -(-len(layers) // 8)
    places = range(0, len(layers), step)
    rotation = 0 if all(len(layer) < 4 for layer in layers) else 90
    axis.set_xticks(places, [layers[place] for place in places], rotation=rotation)
    axis.set_xlabel("layer")


def plain_log(axis: Axis, small: bool = False) -> None:
    """Labels a log axis with plain numbers: 1, 2, 5 times powers of ten, or powers alone if it is long or `small`."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if np.log10(high / low) < 3 and not small else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def weight_name(weight_type: str) -> str:
    """The title of a weight type's update, e.g. Delta W_q in mathematics; a module pattern stays as it is."""
    return rf"$\Delta W_{{{weight_type}}}$" if weight_type.isalnum() else weight_type


def quality_lines(
    axis: Axes,
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    x: str,
    line: str,
    names: Sequence[str],
    scale: float = 100,
    log: bool = True,
    order: str | None = None,
) -> None:
    """Mean of `value`, in percent unless there is another scale, against `x`, on a log axis or not, a line for each
    `line`, bars of the 95% interval, and a small point for each run. Lines of few sizes are set slightly apart so that
    their bars do not cover each other. A line goes from left to right, or in the `order` of another column, whose
    values then stand at its points.

    runs has columns `x`, `line`, value; summary (of `kit.tables.summarise`) has mean and interval too. `names`
    gives the lines their order and styles, the same in all panels; those that are not in summary are left out.
    """
    drawn, sizes = [name for name in names if name in set(summary[line])], sorted(summary[x].unique())
    apart = min(0.16, 0.5 / len(drawn)) if log and len(sizes) <= MANY else 0
    for index, name in enumerate(drawn):
        colour, marker = line_styles(names)[name]
        dodge = 2 ** (apart * (index - (len(drawn) - 1) / 2))
        mean, seeds = summary[summary[line] == name].sort_values(order or x), runs[runs[line] == name]
        axis.errorbar(
            mean[x] * dodge, scale * mean["mean"], yerr=scale * mean["interval"], color=colour, label=name,
            marker=marker, markersize=7 if marker == "*" else 4, linewidth=1.2, elinewidth=1, capsize=2,
        )  # fmt: skip
        axis.scatter(seeds[x] * dodge, scale * seeds["value"], s=7, color=colour, alpha=0.45, linewidths=0)
        for at, value, mark in mean[[x, "mean", order]].dropna().itertuples(index=False) if order else ():
            place = {"xytext": (2, -9), "textcoords": "offset points", "fontsize": 7, "color": colour}
            axis.annotate(f"{mark:g}", (at * dodge, scale * value), **place)
    if log:
        size_axis(axis, sizes)
    if summary["mean"].isna().all():  # every run has collapsed: nothing is drawn that would set the axis
        axis.set_xlim(sizes[0], sizes[-1])
    axis.grid(axis="y", linewidth=0.4)


def size_axis(axis: Axes, sizes: Sequence[float]) -> None:
    """A log axis of these sizes, which are labelled, or some of them; powers of ten where there are many."""
    if len(sizes) > MANY:
        axis.set_xscale("log")
        return
    ticks, at = [sizes[0]], [math.log2(max(size, 0.5)) for size in sizes]
    for size, place in zip(sizes, at, strict=True):
        if place - math.log2(max(ticks[-1], 0.5)) >= (at[-1] - at[0]) / MOST_TICKS > 0:
            ticks.append(size)
    axis.set_xscale("symlog" if sizes[0] == 0 else "log", base=2)
    axis.set_xticks(ticks, [f"{tick:,.0f}" if tick == int(tick) else f"{tick:.3g}" for tick in ticks])
    axis.minorticks_off()


def line_styles(names: Sequence[str]) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each line; methods of which there is one size are in black, the paper's lines in grey."""
    others = [name for name in names if name not in SINGLE and not str(name).startswith(PAPER)]
    colours = sns.color_palette("colorblind" if len(others) <= 10 else "husl", n_colors=len(others))
    markers = itertools.cycle("osD^vP<>" if len(names) > 5 else "o")
    coloured = dict(zip(others, zip(colours, markers, strict=False), strict=False))
    alone = {name: ("black", marker) for name, marker in SINGLE.items()}
    return {name: coloured.get(name) or alone.get(name) or (GREY, "D") for name in names}
