"""advice.png: how large the adapter must be, what weight types are worth, and which rate; a star is what is advised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.advise.advice import Advice, named
from analysis.kit import figures

BEST, LINE, OTHER = "C2", "C0", "0.55"
STAR: dict[str, Any] = {"marker": "*", "markersize": 14, "color": BEST, "linestyle": "", "zorder": 5}
LEGEND: dict[str, Any] = {"loc": "best", "fontsize": 6.5, "frameon": False}
ENTRY = 0.085  # of a legend, as a share of the height of its panel


def draw(advice: Advice, path: Path) -> Path:
    """The advice at a glance."""
    figure, axes = figures.panels(1, 3, 1.35 * figures.PAGE_WIDTH, 3.3, width_ratios=(1.5, 1.1, 1))
    for panel, axis in zip((_size, _worth, _rates), axes.flat, strict=True):
        panel(axis, advice)
    figure.suptitle(f"{advice.subject.model} on {advice.subject.task}: {advice.sentence}", fontweight="bold")
    figure.supxlabel("validation data; bars: 95% interval of the difference to the largest", fontsize=7)
    return figures.save(figure, path)


def _size(axis: Axes, advice: Advice) -> None:
    found = advice.found
    curve = [one for one in found.curve if one.parameters]
    scores = [advice.shown(one.score.value) for one in curve]
    half = [advice.factor * np.nan_to_num(one.above.interval[1] - one.above.value) for one in curve]
    top, low = (advice.shown(found.largest.score.value - below) for below in (0, found.margin))
    axis.axhspan(min(top, low), max(top, low), color=LINE, alpha=0.13, linewidth=0, label="within the margin")
    others = [one for one in found.candidates if one is not found.best]
    smaller = [advice.shown(one.score.value) for one in others]
    axis.scatter([one.parameters for one in others], smaller, s=14, color=OTHER, label="smaller adapters")
    axis.errorbar(
        [one.parameters for one in curve], scores, yerr=half, color=LINE, marker="o", markersize=4, linewidth=1.2,
        elinewidth=1, capsize=2, label="all types, cut to r",
    )  # fmt: skip
    for one, score in zip(curve, scores, strict=True):
        label = f"r = {max(one.pick.ranks)}" if one is curve[0] else f"{max(one.pick.ranks)}"
        axis.annotate(label, (one.parameters, score), (4, 5), textcoords="offset points", fontsize=7)
    if advice.floor is not None:
        axis.axhline(advice.shown(advice.floor), color="0.4", linewidth=0.9, linestyle=":", label="the head alone")
    best = advice.shown(found.best.score.value)
    axis.plot(found.best.parameters, best, label=f"advised: {named(advice.ranks)}", **STAR)
    values = [*scores, best, low, *([] if advice.floor is None else [advice.shown(advice.floor)])]
    margin = 0.15 * (max(values) - min(values)) + 0.002 * advice.factor
    axis.set_ylim(min(values) - margin, max(values) + margin)
    axis.set_xscale("log")
    percent = "" if advice.metric == "loss" else " (%)"
    axis.set(xlabel="parameters of the adapter", ylabel=f"validation {advice.metric}{percent}", title="How large?")
    axis.grid(axis="y", linewidth=0.4)
    axis.legend(**LEGEND)


def _worth(axis: Axes, advice: Advice) -> None:
    """For each unit what it gains alone, and what is lost without it; those that are advised in the star's colour."""
    worth, nothing = advice.found.worth, advice.found.curve[0].score.value
    places = np.arange(len(worth))
    colours = [BEST if own.unit in advice.ranks else OTHER for own in worth]
    gained = [advice.factor * (own.alone[-1].score.value - nothing) for own in worth]
    lost = [-advice.factor * own.without.above.value for own in worth]
    axis.barh(places - 0.2, gained, 0.38, color=colours, label="gained by it alone")
    axis.barh(places + 0.2, lost, 0.38, color=colours, alpha=0.4, label="lost without it")
    axis.axvline(0, color="0.3", linewidth=0.7)
    axis.set_yticks(places, [f"{own.unit} (r = {advice.ranks.get(own.unit, 0)})" for own in worth])
    axis.invert_yaxis()
    axis.set(xlabel=advice.unit, title="On which weights?")
    axis.legend(**LEGEND)


def _rates(axis: Axes, advice: Advice) -> None:
    """Validation loss against the rate, a line for each stage of the halving."""
    tried = [(one.lr, one.share, one.loss) for one in advice.rate.tried if one.loss is not None]
    for stage, share in enumerate(sorted({share for _, share, _ in tried})):
        own = sorted((lr, loss) for lr, at, loss in tried if at == share)
        style = {"color": LINE, "alpha": 0.4 + 0.3 * min(stage, 2), "label": f"{share:.0%} of the examples"}
        axis.plot(*zip(*own, strict=True), marker="o", markersize=4, **style)  # type: ignore[arg-type]
    axis.plot(advice.rate.lr, [loss for lr, _, loss in tried if lr == advice.rate.lr][-1], **STAR)
    rates = sorted({lr for lr, _, _ in tried})
    axis.set_xscale("log")
    axis.set_xticks(rates, [f"{lr:g}" for lr in rates], rotation=45)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set(xlabel="learning rate", ylabel="validation loss", title="Which rate?")
    axis.margins(y=0.08)
    legend = axis.legend(**LEGEND | {"loc": "upper right"})
    low, high = axis.get_ylim()  # the lines are wide apart at either end: the legend gets room above them
    axis.set_ylim(low, low + (high - low) / (1 - ENTRY * len(legend.get_texts())))
