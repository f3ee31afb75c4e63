"""The drawings of studies of updates: a row of panels a model and task, and in each method by method dots or lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, marks, tables
from analysis.kit.data import Data
from analysis.kit.updates import PLACE, by_seed, place_name

DODGE = 0.24  # between series at a method
SEEDS = "dots: means over layers, bars: 95% interval over seeds, cut at the panel's edge"


@dataclass(frozen=True)
class Methods:
    """Means over layers and seeds with their 95% interval: methods along the axis, a colour a series.

    of: rows of model, task, method, seed, `panel`, `series`, `value`, and if it is known what there is by chance, `low`
    and `high`: a box. label: of the y axis; log: its scale; same: the panels of a row share it.
    """

    of: Callable[[Data], pd.DataFrame]
    label: str = ""
    note: str = SEEDS
    log: bool = True
    same: bool = False

    def __call__(self, data: Data, path: Path) -> Path | None:
        """Draws to path; nothing where there is no row."""
        rows = self.of(data)
        places, titles = list(rows.groupby(PLACE, sort=False)), list(dict.fromkeys(rows["panel"]))
        if not places:
            return None
        size, shared = (figures.PAGE_WIDTH, 1.2 + 2.2 * len(places)), "row" if self.same else False
        figure, axes = figures.panels(len(places), len(titles), *size, sharex="row", sharey=shared)
        for line, (key, own) in zip(axes, places, strict=True):
            shown = []
            for axis, title in zip(line, titles, strict=True):
                shown.append(self._panel(axis, own[own["panel"] == title], list(dict.fromkeys(own["method"]))))
                axis.set_title(title)
            for axis, values in zip(line, [pd.concat(shown)] * len(shown) if self.same else shown, strict=True):
                if self.log and len(values):  # the means set it: an interval over three seeds may go down to 0
                    axis.set(yscale="log", ylim=(values.min() / 1.3, values.max() * 1.3))
                    figures.plain_log(axis.yaxis)
            line[0].set_ylabel("\n".join(filter(None, (place_name(key), self.label))))
        legend(figure, axes, list(dict.fromkeys(rows["series"])))
        figure.supxlabel(self.note, fontsize=7)
        return figures.save(figure, path)

    def _panel(self, axis: Axes, rows: pd.DataFrame, methods: Sequence[str]) -> pd.Series:
        """Draws it; returns the means and what there is by chance."""
        series = list(dict.fromkeys(rows["series"]))
        shown = [pd.Series(dtype=float)]
        for name, own in rows.dropna(subset="value").groupby("series", sort=False):
            index = series.index(name)
            found = tables.summarise(by_seed(own, "value", ["method"]), ["method"])
            x = found["method"].map(methods.index) + DODGE * (index - (len(series) - 1) / 2)
            axis.errorbar(x, found["mean"], yerr=found["interval"], color=f"C{index}", label=name, **figures.DOTS)
            shown.append(found["mean"])
            if "low" in own:
                chance = own.groupby("method", sort=False)[["low", "high"]].mean()
                axis.bar(x, chance["high"] - chance["low"], DODGE, chance["low"], color=f"C{index}", alpha=0.3)
                axis.plot(x, chance["high"], "_", color=f"C{index}", markersize=4)
                shown.append(chance["high"])
        axis.set_xticks(range(len(methods)), methods, rotation=90)
        axis.set_xlim(-0.6, len(methods) - 0.4)
        axis.grid(axis="y", linewidth=0.4)
        return pd.concat([values for values in shown if len(values)] or shown)


@dataclass(frozen=True)
class Curves:
    """Medians, or means, over layers and seeds against x: a line a method, light to dark along LoRA's ranks and black
    for full fine-tuning, dashed where LoRA adapts other weight types than most.

    of: rows of model, task, method, `panel`, `row`, what the first of a row of panels says of y, `x`, `value`, and
    perhaps `tick`, what stands on the axis at x. label: of the axis of x; style: of `axis.set`.
    """

    of: Callable[[Data], pd.DataFrame]
    label: str
    note: str
    over: str = "median"
    style: dict[str, Any] | None = None

    def __call__(self, data: Data, path: Path) -> Path:
        """Draws to path."""
        rows = self.of(data)
        places, titles = list(rows.groupby(PLACE, sort=False)), list(dict.fromkeys(rows["panel"]))
        size = figures.PAGE_WIDTH, 0.9 + 2.3 * len(places)
        figure, axes = figures.panels(len(places), len(titles), *size)
        methods = sorted(dict.fromkeys(rows["method"]), key=lambda method: method == "full")
        palette = dict(zip(methods, [*sns.color_palette("viridis_r", len(methods))[1:], "black"], strict=True))
        for line, (key, own) in zip(axes, places, strict=True):
            for axis, title in zip(line, titles, strict=True):
                here = own[own["panel"] == title]
                for method, mine in here.groupby("method", sort=False):
                    found = mine.groupby("x")["value"].agg(self.over)
                    dashes = "--" if "types" in str(method) else "-"
                    dots = {"marker": "o" if len(found) < 20 else "", "markersize": 2.5}
                    axis.plot(found.index, found, dashes, color=palette[str(method)], label=method, **dots)
                axis.set(title=title, xlabel=self.label, **(self.style or {}))
                if "tick" in here:
                    ticks = here.drop_duplicates("x").sort_values("x")
                    axis.set_xticks(ticks["x"], ticks["tick"])
                for scale in (axis.xaxis, axis.yaxis):
                    if scale.get_scale() == "log":
                        figures.plain_log(scale)
                axis.grid(axis="y", linewidth=0.4)
            line[0].set_ylabel(f"{place_name(key)}\n{own['row'].iloc[0]}")
        legend(figure, axes, methods)
        figure.supxlabel(self.note, fontsize=7)
        return figures.save(figure, path)


def legend(figure: Any, axes: Any, order: Sequence[str]) -> None:
    """One legend above all panels, each label once, in the order given."""
    found = dict(zip(*reversed(marks.named(axes)), strict=True))
    names = [name for name in order if name in found]
    handles = [found[name] for name in names]
    figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 8), frameon=False)
