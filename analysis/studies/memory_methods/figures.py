"""The pictures of the study of memory methods: quality against memory, and ranks of the update by method."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures, tables
from analysis.kit.pages import TASK
from analysis.studies.memory_methods.ranks import MEASURES
from analysis.studies.memory_methods.report import GB
from analysis.studies.spectrum.measures import FEW
from analysis.studies.spectrum.tables import by_seed, place_name
from analysis.weights.update_runs import PLACE

MARKERS = "osD^vP*X<>"
SHOWN = ("q", "v", "up", "down")  # attention and feed-forward, as far as a model has them
RANDOM = "random matrix"


def draw_memory(test: pd.DataFrame, table: pd.DataFrame, path: Path) -> Path:
    """A panel a place: mean quality with its 95% interval against the memory of training, a point a method; single runs
    are small. Both frames have `name` and training_memory_bytes; runs without it are left out."""
    places = list(table[table["main"]].groupby(TASK, sort=False))
    names = list(dict.fromkeys(table["name"]))
    colours = dict(zip(names, sns.color_palette(n_colors=len(names)), strict=True))
    width = 4.6 if len(places) == 1 else figures.PAGE_WIDTH
    figure, axes = figures.panels(1, len(places), width, 3.3)
    for axis, ((model, task, metric), cells) in zip(axes.flat, places, strict=True):
        for row in cells.dropna(subset=["training_memory_bytes"]).to_dict("records"):
            marker = MARKERS[names.index(row["name"]) % len(MARKERS)]
            axis.errorbar(
                row["training_memory_bytes"] / GB, 100 * row["mean"], yerr=100 * row["interval"], label=row["name"],
                color=colours[row["name"]], marker=marker, markersize=6, linestyle="none", elinewidth=1, capsize=2,
            )  # fmt: skip
        runs = test[(test["model"] == model) & (test["task"] == task)].dropna(subset=["training_memory_bytes"])
        x, y = runs["training_memory_bytes"] / GB, 100 * runs["value"]
        axis.scatter(x, y, s=7, c=[colours[name] for name in runs["name"]], alpha=0.5)
        axis.set(title=place_name((model, task)), xlabel="memory of training (GB)", ylabel=f"test {metric} (%)")
        axis.grid(linewidth=0.4)
        if len(runs):  # they set the scale, not their intervals
            margin = max(0.5, 0.15 * (y.max() - y.min()))
            axis.set_ylim(y.min() - margin, y.max() + margin)
    _legend(figure, axes, names)
    note = figures.interval_note(table.loc[table["main"], "interval"])
    figure.supxlabel(textwrap.fill(note, int(21 * width)), fontsize=7)
    return figures.save(figure, path)


def draw_ranks(ranks: pd.DataFrame, path: Path) -> Path:
    """A row a place, a column a measure and one for phi with LoRA's outputs, the left singular vectors; methods along
    the axis, a random matrix last. ranks: of `studies.memory_methods.ranks.measure`, with `method`."""
    places = list(ranks.groupby(PLACE, sort=False))
    types = [name for name in SHOWN if name in set(ranks["weight_type"])] or list(ranks["weight_type"].unique())
    columns = {name: f"random_{name}" for name in MEASURES} | {"phi_left": "chance_left"}
    titles = [*MEASURES.values(), r"$\phi(k, k)$ with LoRA"]
    size = figures.PAGE_WIDTH, 1.3 + 2.3 * len(places)
    figure, axes = figures.panels(len(places), len(columns), *size, sharex="row")
    for line, (key, cells) in zip(axes, places, strict=True):
        methods = [*dict.fromkeys(cells["method"]), RANDOM]
        for axis, title, (column, chance) in zip(line, titles, columns.items(), strict=True):
            for index, (weight_type, colour) in enumerate(zip(types, sns.color_palette(), strict=False)):
                dodge = 0.18 * (index - (len(types) - 1) / 2)
                mine = cells[cells["weight_type"] == weight_type].dropna(subset=[column])
                if len(mine):
                    _dots(axis, mine, column, methods, dodge, colour, figures.weight_name(weight_type))
                    axis.plot(methods.index(RANDOM) + dodge, mine[chance].mean(), "_", color=colour, markersize=6)
            shown = cells[cells["weight_type"].isin(types)]
            means = by_seed(shown, column, ["method", "weight_type"])["value"]
            _scale(axis, column, [*means.dropna(), *shown[chance].dropna()])
            axis.set_title(title)
            axis.set_xticks(range(len(methods)), methods, rotation=90)
            axis.set_xlim(-0.6, len(methods) - 0.4)
            axis.grid(axis="y", linewidth=0.4)
        line[0].set_ylabel(place_name(key))
    _legend(figure, axes, [figures.weight_name(weight_type) for weight_type in types])
    note = (
        f"dots: means over layers; bars: 95% interval over seeds, cut at the panel's edge; $\\phi$: of outputs, k is "
        f"{FEW} or LoRA's rank; random: Gaussian"
    )
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def _scale(axis: Axes, column: str, values: Sequence[float]) -> None:
    """The runs and chance set the scale, not their intervals: a share's is linear, all others are logarithmic."""
    if column == "top_share":
        axis.set_ylim(0, 1.05)
        return
    axis.set_yscale("log")
    if values:
        axis.set_ylim(min(values) / 1.3, max(values) * 1.3)
    figures.plain_log(axis.yaxis)


def _dots(
    axis: Axes, rows: pd.DataFrame, column: str, methods: Sequence[str], dodge: float, colour: Any, label: str
) -> None:
    means = tables.summarise(by_seed(rows, column, ["method"]), ["method"])
    x = [methods.index(method) + dodge for method in means["method"]]
    axis.errorbar(
        x, means["mean"], yerr=means["interval"], color=colour, label=label, linestyle="none", marker="o",
        markersize=3.5, elinewidth=0.9, capsize=1.5,
    )  # fmt: skip


def _legend(figure: Figure, axes: Any, order: Sequence[str]) -> None:
    """One legend above all panels, each label once, in the order given."""
    found = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [name for name in order if name in found]
    handles = [found[name] for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 7), frameon=False)
