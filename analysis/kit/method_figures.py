"""Pictures of a comparison of methods: quality of each, and validation quality against learning rate."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.kit import figures, naming
from analysis.kit.compare import METHOD, REFERENCES, reference
from analysis.kit.data import Data
from analysis.kit.method_tables import TASK
from analysis.kit.tuning import LOWER_IS_BETTER

FAMILY_COLOURS = dict(zip(naming.FAMILIES, sns.color_palette(n_colors=len(naming.FAMILIES)), strict=True))
GREY = "0.55"


def draw_methods(test: pd.DataFrame, table: pd.DataFrame, path: Path) -> Path:
    """A panel a task, a line a method, the same in all: mean and 95% interval, beside them a point for each run.

    test holds the runs, table a row for each of `kit.tuning.CELL`, with mean, interval and n.
    """
    methods = naming.methods(table)
    tasks = list(table.groupby(TASK, sort=False))
    columns = 2 if len(tasks) == 4 else min(len(tasks), 3)
    rows = -(-len(tasks) // columns)
    size = (figures.PAGE_WIDTH if columns > 1 else 5.0, rows * (0.55 + 0.235 * len(methods)) + 0.3)
    figure, axes = figures.panels(rows, columns, *size)
    off_scale = False
    for place, (axis, ((model, task, metric), cells)) in enumerate(figures.fill(axes.flat, tasks)):
        runs = test[(test["model"] == model) & (test["task"] == task)]
        off_scale |= _methods_panel(axis, runs, cells, methods)
        names = [naming.title(*method) for method in methods] if place % columns == 0 else []
        axis.set_yticks(range(len(methods)), names or [""] * len(methods))
        axis.set(title=f"{task} ({model})", xlabel=f"test {metric} (%)")
    line = int(21 * figure.get_figwidth())  # characters of this size
    figure.supxlabel(textwrap.fill(_note(table, off_scale), line), fontsize=7)
    return figures.save(figure, path)


def _methods_panel(axis: Axes, runs: pd.DataFrame, cells: pd.DataFrame, methods: list[tuple[str, str]]) -> bool:
    """Draws a task; says whether something is off the scale."""
    base, (low, high) = _base(cells), _limits(100 * runs["value"], 100 * cells["mean"])
    for key, mean, interval in zip(naming.keys(cells), 100 * cells["mean"], 100 * cells["interval"], strict=True):
        y = methods.index(key)
        colour = FAMILY_COLOURS[naming.family(key[0])]
        if key == base:
            axis.axvline(mean, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            if not np.isnan(interval):
                axis.axvspan(mean - interval, mean + interval, color="0.9", linewidth=0, zorder=-1)
        values = 100 * runs.loc[(runs[METHOD] == list(key)).all(axis=1), "value"]
        if mean >= low:
            axis.errorbar(mean, y, xerr=interval, color=colour, marker="o", markersize=4.5, elinewidth=1.2, capsize=2)
        else:
            axis.annotate(
                f"◂ {mean:.1f}", (low, y), (3, 0), textcoords="offset points", color=colour, va="center", fontsize=6
            )
        inside = values[values >= low] if len(values) > 1 else values[:0]
        axis.scatter(inside, np.full(len(inside), y + 0.28), s=8, color=colour, alpha=0.6, linewidths=0)
        if mean >= low > values.min():
            lost = ", ".join(f"{value:.0f}" for value in sorted(values[values < low]))
            axis.annotate(
                f"◂ {lost}", (low, y + 0.28), (3, 0), textcoords="offset points", color=colour, va="center", fontsize=6
            )
    families = [naming.family(label) for label, _ in methods]
    for y in range(1, len(methods)):
        if families[y] != families[y - 1]:
            axis.axhline(y - 0.5, color="0.8", linewidth=0.6)
    axis.set(xlim=(low, high), ylim=(len(methods) - 0.4, -0.6))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", linewidth=0.4)
    return bool(100 * runs["value"].min() < low)


def _limits(values: pd.Series, means: pd.Series) -> tuple[float, float]:
    """The runs set the scale, not their intervals; but methods far below the others (Tukey's outer fence), and seeds
    that failed, would squeeze what is compared into a line."""
    lower, upper = means.quantile([0.25, 0.75])
    low = max(values.min(), min(lower - 3 * (upper - lower), lower - 3))
    margin = max(0.5, 0.06 * (values.max() - low))
    return low - margin, values.max() + margin


def _base(cells: pd.DataFrame) -> tuple[str, str] | None:
    return next((key for name in REFERENCES if (key := reference(cells, name))), None)


def _note(table: pd.DataFrame, off_scale: bool) -> str:
    bases = {key[0] for _, cells in table.groupby(TASK) for key in [_base(cells)] if key}
    parts = ["large points: means; small points: single runs"] if (table["n"] > 1).any() else []
    if table["interval"].notna().any():
        parts.insert(0, "bars: 95% Student-t interval, cut at the edge")
    if table["interval"].isna().any():
        parts.append("no bar: 1 seed")
    if bases:
        parts.append(f"grey: {' or '.join(sorted(bases))}")
    if off_scale:
        parts.append("◂: off the scale")
    return "; ".join(parts)


def rates(data: Data, path: Path) -> Path | None:
    """`draw_rates` of a study's rates; None where none was tuned."""
    return None if data.rates.empty else draw_rates(data.rates, path)


def draw_rates(rates: pd.DataFrame, path: Path) -> Path:
    """Validation quality against learning rate: a row of panels a task, a column a family of methods, LoRA's own line
    in grey in all. Rates that do much worse than most (`_scale`) are off the scale, with their values at the edge.

    rates is of `kit.tuning.rates`.
    """
    tasks = list(rates.groupby(TASK, sort=False))
    methods = naming.methods(rates)
    families = list(dict.fromkeys(naming.family(label) for label, _ in methods))
    of = {family: [key for key in methods if naming.family(key[0]) == family] for family in families}
    longest = max(len(keys) for keys in of.values())
    heights = [1.7] * len(tasks) + [0.15 + 0.145 * longest]
    width = max(figures.PAGE_WIDTH * len(families) / 5, 4.0)
    figure, axes = figures.panels(len(heights), len(families), width, sum(heights) + 0.35, height_ratios=heights)
    several = {label for label, _ in methods if sum(name == label for name, _ in methods) > 1}
    outside = False
    for column, family in enumerate(families):
        colours = dict(zip(of[family], sns.color_palette(n_colors=max(len(of[family]), 1)), strict=False))
        for row, ((_, task, metric), grid) in enumerate(tasks):
            axis = axes[row, column]
            scale, unit = (1, "nats a token") if metric in LOWER_IS_BETTER else (100, "%")
            outside |= _rates_panel(axis, grid, colours, metric in LOWER_IS_BETTER, scale)
            axis.set_xlim(rates["lr"].min() / 1.6, rates["lr"].max() * 1.6)
            axis.set(
                title=family if row == 0 and len(families) > 1 else "",
                xlabel="learning rate" if row == len(tasks) - 1 else "",
            )
            axis.tick_params(axis="y", labelleft=column == 0)
            if column == 0:
                axis.set_ylabel(f"{task}\nvalidation {metric}\n({unit})")
        names = [naming.title(label, of_ if label in several else "") for label, of_ in colours]
        handles = [Line2D([], [], color=colour, marker="o", markersize=3, linewidth=1.2) for colour in colours.values()]
        axes[-1, column].axis("off")
        axes[-1, column].legend(handles, names, loc="upper center", frameon=False, borderpad=0, labelspacing=0.25)
    notes = {
        "stars: the rates chosen": rates["chosen"].any(),
        "crosses: training failed": rates["value"].isna().any(),
        "triangles: off the scale": outside,
        "grey: LoRA": len(families) > 1 and "lora" in set(rates["label"]),
        "one run a point": (rates["n"] <= 1).all(),
    }
    figure.supxlabel("; ".join(note for note, there in notes.items() if there), fontsize=7)
    return figures.save(figure, path)


def _scale(grid: pd.DataFrame, lower: bool, scale: int) -> tuple[float, float]:
    """The lowest and highest value that is shown, of those not far off: ten times the usual distance to the best (the
    median) at most, or a tenth. A rate that fails would squeeze the others into a line. Chosen rates are shown."""
    worse = (1 if lower else -1) * scale * grid["value"].dropna()  # rises as values get worse
    distance = worse - worse.min()
    reach = max(10 * distance.median(), 0.1 * scale)
    shown = worse[(distance <= reach) | grid["chosen"][worse.index]]
    return (shown.min(), shown.max()) if lower else (-shown.max(), -shown.min())


def _rates_panel(
    axis: Axes, grid: pd.DataFrame, colours: dict[tuple[str, str], tuple[float, float, float]], lower: bool, scale: int
) -> bool:
    """Draws the methods of `colours`, of a task's grid; says whether one of their rates is off the scale."""
    low, high = _scale(grid, lower, scale)
    margin = max(0.01 * scale, 0.07 * (high - low))
    bad, inwards = (high + margin, -1) if lower else (low - margin, 1)
    base = reference(grid.rename(columns={"n": "runs"}).assign(n=1), "lora")
    beyond: dict[float, int] = {}
    for key, cell in grid.groupby(METHOD, sort=False):
        value = scale * cell["value"]
        if key == base and key not in colours:
            axis.plot(cell["lr"], value, color=GREY, linewidth=1, zorder=1)
        if key not in colours:
            continue
        axis.plot(cell["lr"], value, color=colours[key], marker="o", markersize=2.5, linewidth=1.1)
        axis.plot(
            cell["lr"][cell["chosen"]], value[cell["chosen"]], color=colours[key], marker="*", markersize=8,
            markeredgecolor="black", markeredgewidth=0.4, linestyle="", zorder=3,
        )  # fmt: skip
        lost = cell["lr"][cell["value"].isna()]
        at = [bad + inwards * margin / 2] * len(lost)
        axis.plot(lost, at, color=colours[key], marker="x", markersize=4, linestyle="")
        for lr, off in zip(cell["lr"], value, strict=True):
            if not low <= off <= high and not np.isnan(off):
                beyond[lr] = beyond.get(lr, 0) + 1
                axis.annotate(
                    f"{off:.3g} {'▴' if lower else '▾'}", (lr, bad), (3, inwards * (7 * beyond[lr] - 2)),
                    textcoords="offset points", color=colours[key], ha="right", va="center", fontsize=6, zorder=4,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
                )  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(low - margin, high + margin)
    axis.grid(axis="y", linewidth=0.4)
    return bool(beyond)
