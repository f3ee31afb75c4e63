"""Pictures of a comparison of methods: what each reaches, and validation quality against learning rate."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.kit import figures, marks, metrics, naming
from analysis.kit.compare import METHOD, REFERENCES, reference
from analysis.kit.data import Data
from analysis.kit.metrics import Metric
from analysis.kit.pages import TASK
from analysis.kit.tuning import LOWER_IS_BETTER

FAMILY_COLOURS = dict(zip(naming.FAMILIES, sns.color_palette(n_colors=len(naming.FAMILIES)), strict=True))
GREY = "0.55"
BESIDE = 0.29  # of a row: how far below a mean its single runs are, and how far above it the paper's
Limits = tuple[float, float]


@dataclass(frozen=True)
class Methods:
    """A panel for each model, task and metric, a line a method, the same in all: mean and 95% interval, below them a
    point for each run and, above, the paper's number.

    of: gives the means, a row for each of `kit.tuning.CELL`; its column `theirs`, if it has one, are numbers of another
    model: they are shifted, and the upper axis with them, so that both agree at the dashed line. base: the labels of
    which the first that is there has this line. note: more to say below.
    """

    of: Callable[[Data], pd.DataFrame]
    runs: Callable[[Data], pd.DataFrame] = lambda data: data.scores
    base: Sequence[str] = REFERENCES
    note: str = ""

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws the means, and the runs, to path."""
        table, scores = self.of(data), self.runs(data)
        methods, places = naming.methods(table), list(table.groupby(TASK, sort=False))
        columns = 2 if len(places) == 4 else min(len(places), 3)
        rows = -(-len(places) // columns)
        size = (figures.PAGE_WIDTH if columns > 1 else 5.0, rows * (0.8 + 0.22 * len(methods)) + 0.4)
        figure, axes = figures.panels(rows, columns, *size)
        outside = False
        for number, (axis, (place, cells)) in enumerate(figures.fill(axes.flat, places)):
            outside |= self._panel(axis, cells, marks.at(scores, place), methods, metrics.of(str(place[2])))
            names = [naming.title(*method) for method in methods] if number % columns == 0 else []
            axis.set_yticks(range(len(methods)), names or [""] * len(methods))
            axis.set(title=f"{place[1]} ({place[0]})", xlabel=metrics.of(str(place[2])).axis)
        bars = figures.interval_note(table["interval"], scores["value"])
        notes = [bars + ("; ◂ ▸: off the scale" if outside else ""), self.note]
        figure.supxlabel("\n".join(filter(None, notes)), fontsize=7)
        return figures.save(figure, path)

    def _panel(
        self, axis: Axes, cells: pd.DataFrame, runs: pd.DataFrame, methods: list[tuple[str, str]], metric: Metric
    ) -> bool:
        """Draws a metric; says whether something is off the scale."""
        cells = cells.assign(theirs=cells.get("theirs", np.nan))
        cells[["mean", "interval", "theirs"]] *= metric.scale
        values = metric.scale * runs["value"]
        base = next((key for label in self.base if (key := reference(cells, label))), None)
        gaps, is_base = cells["theirs"] - cells["mean"], [key == base for key in naming.keys(cells)]
        shift = gaps.mean() if gaps[is_base].isna().all() else gaps[is_base].mean()
        limits = _limits(
            pd.concat([cells["mean"], cells["theirs"] - shift]).dropna(), values, cells.loc[is_base, "mean"]
        )
        outside = False
        for row in cells.to_dict("records"):
            key = row["label"], row["settings"]
            y, colour, mean = methods.index(key), FAMILY_COLOURS[naming.family(key[0])], row["mean"]
            if not _beyond(axis, [mean], y, limits, colour):
                bar = {"xerr": row["interval"], "elinewidth": 1.2, "capsize": 2}
                axis.errorbar(mean, y, color=colour, marker="o", markersize=4.5, **bar)
                if key == base:
                    axis.axvline(mean, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
                own = values[(runs[METHOD] == list(key)).all(axis=1)]
                inside = own[own.between(*limits)] if len(own) > 1 else own[:0]
                axis.scatter(inside, np.full(len(inside), y + BESIDE), s=8, color=colour, alpha=0.6, linewidths=0)
                outside |= _beyond(axis, own, y + BESIDE, limits, colour, values=False)
            else:
                outside = True
            if not _beyond(axis, [row["theirs"] - shift], y - BESIDE, limits, figures.GREY, shift):
                style: dict[str, Any] = {
                    "marker": "D",
                    "s": 12,
                    "facecolors": "none",
                    "edgecolors": figures.GREY,
                    "linewidths": 0.8,
                }
                axis.scatter(row["theirs"] - shift, y - BESIDE, **style)
        if not np.isnan(shift):
            marks.second_axis(axis.secondary_xaxis, "top", shift)
        families = [naming.family(label) for label, _ in methods]
        for y in range(1, len(methods)):
            if families[y] != families[y - 1]:
                axis.axhline(y - 0.5, color="0.8", linewidth=0.6)
        axis.set(xlim=limits, ylim=(len(methods) - 0.4, -0.6))
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", linewidth=0.4)
        return outside


def _limits(means: pd.Series, runs: pd.Series, base: pd.Series) -> Limits:
    """The runs set the scale, not their intervals; but what lies far from the most (Tukey's outer fence) would squeeze
    what is compared into a line. The base is on it."""
    if means.empty:  # every run has collapsed
        return 0.0, 1.0
    lower, upper = means.quantile([0.25, 0.75])
    reach = max(3 * (upper - lower), 0.03 * abs(means.median()))
    every = pd.concat([means, runs])
    low, high = max(every.min(), lower - reach), min(every.max(), upper + reach)
    low, high = min([low, *base]), max([high, *base])
    margin = max(0.07 * (high - low), 0.005 * abs(means.median()), 1e-9)
    return low - margin, high + margin


def _beyond(
    axis: Axes, found: Iterable[float], y: float, limits: Limits, colour: Any, shift: float = 0.0, values: bool = True
) -> bool:
    """Writes at the edge what was found that is not between the limits, plus shift, or without values a mark for each;
    says whether there is any."""
    beyond = False
    for edge, sign in zip(limits, (-1, 1), strict=True):
        lost = [f"{value + shift:.3g}" for value in sorted(found) if sign * value > sign * edge]
        if lost:
            mark, said = "◂" if sign < 0 else "▸", ", ".join(lost)
            text = (f"{mark} {said}" if sign < 0 else f"{said} {mark}") if values else mark * len(lost)
            axis.annotate(
                text, (edge, y), (-2 * sign, 0), textcoords="offset points", color=colour,
                ha="left" if sign < 0 else "right", va="center", fontsize=6,
            )  # fmt: skip
            beyond = True
    return beyond


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
