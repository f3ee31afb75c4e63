"""Drawing helpers shared by the studies: one theme, panels, axes, and quality against a size."""

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


def interval_note(intervals: pd.Series, over: str = "seeds") -> str:
    """What the bars and small points of a figure are; intervals are NaN where there is one seed. over: what runs of one
    method differ in."""
    if intervals.isna().all():
        return "1 seed: no interval"
    note = f"bars: 95% Student-t interval over {over}, cut at the panel's edge; small points: single runs"
    return f"{note}; no bar: 1 seed, no interval" if intervals.isna().any() else note


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
    axis: Axes, runs: pd.DataFrame, summary: pd.DataFrame, x: str, line: str, names: Sequence[str]
) -> None:
    """Mean of `value` in percent against `x` on a log2 axis, a line for each `line`, bars of the 95% interval, and a
    small point for each run. Lines are set slightly apart so that their bars do not cover each other.

    runs has columns `x`, `line`, value; summary (of `kit.tables.summarise`) has mean and interval too. `names`
    gives the lines their order and colours, the same in all panels; those that are not in summary are left out.
    """
    for index, (name, colour) in enumerate(zip(names, sns.color_palette(n_colors=len(names)), strict=True)):
        dodge = 2 ** (0.16 * (index - (len(names) - 1) / 2))
        mean, seeds = summary[summary[line] == name].sort_values(x), runs[runs[line] == name]
        if mean.empty:
            continue
        axis.errorbar(
            mean[x] * dodge, 100 * mean["mean"], yerr=100 * mean["interval"], color=colour, label=name,
            marker="o", markersize=4, linewidth=1.2, elinewidth=1, capsize=2,
        )  # fmt: skip
        axis.scatter(seeds[x] * dodge, 100 * seeds["value"], s=7, color=colour, alpha=0.45, linewidths=0)
    log2_axis(axis, summary[x])


def log2_axis(axis: Axes, values: pd.Series) -> None:
    """An x axis of powers of two, with a tick at each of the values."""
    ticks = sorted(values.unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="y", linewidth=0.4)
