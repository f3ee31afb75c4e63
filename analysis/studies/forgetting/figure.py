"""forgetting.png: forgetting over LoRA's rank with the other methods beside it, and against what is learnt."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, naming
from analysis.studies.forgetting.report import FORGETTING

MARKERS = "osD^vPX<>"


class Style(NamedTuple):
    """The colour and marker of a method, or of a line of LoRA."""

    colour: object
    marker: str


def draw(table: pd.DataFrame, scores: pd.DataFrame, path: Path) -> Path:
    """A row of two panels for each model, task and text: forgetting by method, over r where that is LoRA's, and
    forgetting against test loss. Bars are 95% intervals, small points single runs.

    table is of `studies.forgetting.study.tabulate`, scores of its `with_forgetting`.
    """
    table, scores = (frame.assign(name=_names(frame)) for frame in (table, scores))
    rows = [
        (key, text)
        for key, cells in table.groupby(["model", "task"], sort=False)
        for text in cells["metric"].unique()
        if text.startswith(FORGETTING)
    ]
    figure, axes = figures.panels(len(rows), 2, figures.PAGE_WIDTH, 2.7 * len(rows) + 0.6)
    styles = _styles(list(table["name"].unique()))
    for (by_rank, tradeoff), ((model, task), metric) in zip(axes, rows, strict=True):
        cells, runs = (frame[(frame["model"] == model) & (frame["task"] == task)] for frame in (table, scores))
        forgotten, single = cells[cells["metric"] == metric], runs[runs["metric"] == metric]
        text = metric.removeprefix(FORGETTING)
        _by_method(by_rank, forgotten, single, styles)
        _tradeoff(tradeoff, _both(forgotten, cells), _both(single, runs), styles)
        by_rank.set_ylabel(f"rise of the loss on {text}\n(nats a token)")
        by_rank.set_title(f"what is forgotten: {text} ({model}, {task})")
        tradeoff.set(title="what is learnt and what is forgotten", xlabel=f"test loss on {task} (nats a target token)")
        for axis in (by_rank, tradeoff):
            axis.set_ylim(*_limits(single["value"]))
            axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
            axis.grid(axis="y", linewidth=0.4)
    handles, names = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    figure.supxlabel(figures.interval_note(table["interval"]), fontsize=7)
    return figures.save(figure, path)


def _names(frame: pd.DataFrame) -> pd.Series:
    """LoRA's line, or the method with those of its settings that tell it apart in the study."""
    several = frame[frame["line"] == ""].groupby("label")["settings"].nunique()
    names = [
        line or naming.title(label, settings if several[label] > 1 else "")
        for line, label, settings in zip(frame["line"], frame["label"], frame["settings"], strict=True)
    ]
    return pd.Series(names, frame.index)


def _styles(names: Sequence[str]) -> dict[str, Style]:
    colours = sns.color_palette("colorblind" if len(names) <= 10 else "husl", n_colors=len(names))
    found = {
        name: Style(*style)
        for name, style in zip(names, zip(colours, itertools.cycle(MARKERS), strict=False), strict=False)
    }
    return found | {name: Style("black", "*") for name in names if name == "full"}


def _limits(values: pd.Series) -> tuple[float, float]:
    """The scale from the lowest to the highest run, 0 included: intervals do not set it."""
    low, high = min(values.min(), 0), max(values.max(), 0)
    margin = 0.08 * (high - low) or 0.01
    return low - margin, high + margin


def _both(forgotten: pd.DataFrame, every: pd.DataFrame) -> pd.DataFrame:
    """The rows of a text's forgetting with those of the test loss beside them, whose columns end in _loss."""
    keys = ["label", "settings", *(["seed"] if "seed" in every else [])]
    return forgotten.merge(every[every["metric"] == "loss"], on=keys, suffixes=("", "_loss"))


def _by_method(axis: Axes, forgotten: pd.DataFrame, runs: pd.DataFrame, styles: Mapping[str, Style]) -> None:
    """LoRA's ranks from left to right, then a place for each other method, in which full fine-tuning is a line too."""
    ranked = forgotten[forgotten["line"] != ""]
    ranks = sorted(ranked["r"].unique())
    others = [name for name in forgotten["name"] if name not in set(ranked["name"])]
    places: dict[object, float] = {r: float(place) for place, r in enumerate(ranks)}
    places |= {name: len(ranks) + 0.5 + place for place, name in enumerate(others)}
    lines = list(ranked["name"].unique())
    for name, cells in forgotten.groupby("name", sort=False):
        style = styles[str(name)]
        shift = 0.16 * (lines.index(name) - (len(lines) - 1) / 2) if name in lines else 0.0
        own = runs[runs["name"] == name]
        at, points = (
            np.array([places[r if name in lines else name] for r in frame["r"]]) + shift for frame in (cells, own)
        )
        order = np.argsort(at)
        axis.errorbar(
            at[order], cells["mean"].iloc[order], cells["interval"].iloc[order], color=style.colour,
            marker=style.marker, markersize=8 if style.marker == "*" else 5, linewidth=1.2, elinewidth=0.9,
            capsize=2, zorder=3,
        )  # fmt: skip
        axis.scatter(points, own["value"], s=8, color=style.colour, alpha=0.45, linewidths=0)
    full = forgotten.loc[forgotten["name"] == "full", "mean"]
    if len(full):
        axis.axhline(full.iloc[0], color="black", linestyle="--", linewidth=0.8, zorder=0)
    if ranks and others:
        axis.axvline(len(ranks) - 0.25, color="0.8", linewidth=0.8)
    axis.set_xlabel(" and ".join(["rank of LoRA"] * bool(ranks) + ["other methods"] * bool(others)))
    axis.set_xticks(
        list(places.values()), [f"r = {place:g}" if place in ranks else str(place) for place in places],
        rotation=40, ha="right", rotation_mode="anchor",
    )  # fmt: skip


def _tradeoff(axis: Axes, means: pd.DataFrame, runs: pd.DataFrame, styles: Mapping[str, Style]) -> None:
    for name, cells in means.groupby("name", sort=False):
        style = styles[str(name)]
        cells = cells.sort_values("r") if (cells["line"] != "").all() else cells
        axis.errorbar(
            cells["mean_loss"], cells["mean"], cells["interval"], cells["interval_loss"], color=style.colour,
            marker=style.marker, markersize=8 if style.marker == "*" else 5, linewidth=1.0, elinewidth=0.7,
            alpha=0.9, label=name, zorder=3,
        )  # fmt: skip
        own = runs[runs["name"] == name]
        axis.scatter(own["value_loss"], own["value"], s=8, color=style.colour, alpha=0.45, linewidths=0)
        if len(cells) > 1:
            for row in cells.to_dict("records"):
                axis.annotate(
                    f"{row['r']:g}", (row["mean_loss"], row["mean"]), xytext=(4, 4), textcoords="offset points",
                    fontsize=6.5, color=style.colour,
                )  # fmt: skip
    low, high = runs["value_loss"].min(), runs["value_loss"].max()
    margin = 0.08 * (high - low) or 0.05
    axis.set_xlim(low - margin, high + margin)
