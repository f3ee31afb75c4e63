"""advice.png: quality against rank, what weight types are worth, and the learning rate, with what is recommended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.advise.choose import Judged
from analysis.advise.page import Advice, named, scale
from analysis.kit import figures

BEST, LINE, OTHER = "C2", "C0", "0.55"


def draw(advice: Advice, path: Path) -> Path:
    """The advice at a glance."""
    figure, axes = figures.panels(1, 3, 1.35 * figures.PAGE_WIDTH, 3.3, width_ratios=(1.5, 1.1, 1))
    _ranks(axes[0, 0], advice)
    _worth(axes[0, 1], advice)
    _rates(axes[0, 2], advice)
    figure.suptitle(f"{advice.subject.model} on {advice.subject.task}: {advice.sentence}", fontweight="bold")
    figure.supxlabel("validation data; bars and band: 95% over seeds and items", fontsize=7)
    return figures.save(figure, path)


def _shown(advice: Advice, value: float) -> float:
    """A score as it is drawn: percent, or the loss."""
    return -value if advice.metric == "loss" else 100 * value


def _ranks(axis: Axes, advice: Advice) -> None:
    """Score against parameters: the whole update cut to rising ranks, smaller adapters, and the recommended one."""
    found = advice.found
    curve = [one for one in found.curve if one.parameters]
    x = [one.parameters for one in curve]
    y = [_shown(advice, one.score.value) for one in curve]
    half = [scale(advice)[0] * np.nan_to_num(one.above.interval[1] - one.above.value) for one in curve]
    axis.errorbar(
        x, y, yerr=half, color=LINE, marker="o", markersize=4, capsize=2, linewidth=1.2, label="all types, cut to r"
    )
    for one, value in zip(curve, y, strict=True):
        axis.annotate(
            f"{max(one.pick.ranks)}",
            (one.parameters, value),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    others = [one for one in found.candidates if one is not found.best]
    if others:
        axis.scatter(
            [one.parameters for one in others],
            [_shown(advice, one.score.value) for one in others],
            s=14,
            color=OTHER,
            label="other adapters",
        )
    top, low = (_shown(advice, found.largest.score.value - off) for off in (0, found.margin))
    axis.axhspan(
        min(top, low), max(top, low), color=LINE, alpha=0.13, linewidth=0, label="within the margin of the largest"
    )
    if advice.floor is not None:
        axis.axhline(_shown(advice, advice.floor), color="0.4", linewidth=0.9, linestyle=":", label="the head alone")
    _star(axis, advice, found.best)
    axis.set_xscale("log")
    axis.set(
        xlabel="parameters of the adapter",
        ylabel=f"validation {advice.metric}{'' if advice.metric == 'loss' else ' (%)'}",
        title="How large must it be?",
    )
    axis.legend(loc="best", fontsize=6.5, frameon=False)
    axis.grid(axis="y", linewidth=0.4)


def _star(axis: Axes, advice: Advice, best: Judged) -> None:
    label = f"recommended: {named(advice.subject, best.pick)}"
    axis.plot(
        best.parameters,
        _shown(advice, best.score.value),
        marker="*",
        markersize=13,
        color=BEST,
        linestyle="",
        label=label,
        zorder=5,
    )


def _worth(axis: Axes, advice: Advice) -> None:
    """For each unit what is lost without it, and what it gains alone."""
    factor, unit = scale(advice)
    nothing = advice.found.curve[0].score.value
    names = [own.unit for own in advice.found.worth]
    places = np.arange(len(names))
    lost = [-factor * own.cost.above.value for own in advice.found.worth]
    gained = [factor * (own.alone[-1].score.value - nothing) for own in advice.found.worth]
    chosen = [BEST if name in advice.ranks else OTHER for name in names]
    axis.barh(places - 0.2, gained, 0.38, color=chosen, label="gained by it alone")
    axis.barh(places + 0.2, lost, 0.38, color=chosen, alpha=0.4, label="lost without it")
    axis.axvline(0, color="0.3", linewidth=0.7)
    axis.set_yticks(places, [f"{name} ({advice.ranks.get(name, 0)})" for name in names])
    axis.invert_yaxis()
    axis.set(xlabel=unit, title="What is each type worth? (its r)")
    axis.legend(loc="best", fontsize=6.5, frameon=False)


def _rates(axis: Axes, advice: Advice) -> None:
    """Validation loss against the rate, a line for each stage of the halving."""
    for shade, share in enumerate(sorted({one.share for one in advice.rate.tried})):
        own = sorted((one.lr, one.loss) for one in advice.rate.tried if one.share == share and one.loss is not None)
        axis.plot(
            [lr for lr, _ in own],
            [loss for _, loss in own],
            marker="o",
            markersize=4,
            alpha=0.45 + 0.25 * min(shade, 2),
            color=LINE,
            label=f"{share:.0%} of the examples",
        )
    last = [one for one in advice.rate.tried if one.lr == advice.rate.lr and one.loss is not None][-1]
    axis.plot(last.lr, last.loss, marker="*", markersize=13, color=BEST, linestyle="")
    rates = sorted({one.lr for one in advice.rate.tried})
    axis.set_xscale("log")
    axis.set_xticks(rates, [f"{lr:g}" for lr in rates], rotation=45)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set(xlabel="learning rate", ylabel="validation loss", title="Which rate?")
    axis.legend(loc="best", fontsize=6.5, frameon=False)
