"""Pictures of studies of generated text: a panel a metric, the paper's numbers on an axis of their own."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, naming
from analysis.kit.compare import METHOD, REFERENCES, reference
from analysis.kit.generation_metrics import VALIDATION_LOSS, Metric
from analysis.kit.method_figures import FAMILY_COLOURS

GREY = "0.35"
COLUMNS = 3
BESIDE = 0.29  # of a row: how far below a mean its single runs are, and how far above it the paper's
Key = tuple[str, str]


def draw_methods(
    scores: pd.DataFrame, table: pd.DataFrame, paper: pd.DataFrame, metrics: Mapping[str, Metric], path: Path
) -> Path:
    """A panel for each task and metric (losses only if there is nothing else), a line a method: mean with 95% interval,
    a point for each run, and the paper's number for the first model of its table, on the upper axis.

    That axis has the scale of the lower one, and is shifted: at LoRA's line (else at that of full) both agree, so that
    differences to it can be compared. Of several sizes of a method the largest is beside the paper's largest. The
    frames are those of `kit.generation`.
    """
    drawn = {name: metric for name, metric in metrics.items() if name not in ("loss", VALIDATION_LOSS)} or metrics
    methods = naming.methods(table)
    paper = paper[paper["model"] == paper["model"].iloc[0]] if len(paper) else paper
    cells = [(key, name) for key, _ in table.groupby(["model", "task"], sort=False) for name in drawn]
    columns = min(len(drawn), COLUMNS)
    rows = -(-len(cells) // columns)
    size = (figures.PAGE_WIDTH if columns > 1 else 5.0, rows * (0.8 + 0.22 * len(methods)) + 0.4)
    figure, axes = figures.panels(rows, columns, *size)
    outside = False
    for place, (axis, ((model, task), name)) in enumerate(figures.fill(axes.flat, cells)):
        ours = table[(table["model"] == model) & (table["task"] == task)]
        runs = scores[(scores["model"] == model) & (scores["task"] == task) & (scores["metric"] == name)]
        outside |= _methods_panel(axis, runs, ours, paper, methods, name, drawn[name])
        labels = [naming.title(*method) for method in methods] if place % columns == 0 else []
        axis.set_yticks(range(len(methods)), labels or [""] * len(methods))
        several = f"{task} ({model}): " if len(cells) > len(drawn) else ""
        axis.set_title(several + _title(drawn[name]))
    notes = [figures.interval_note(pd.concat([table[f"{name}_interval"] for name in drawn]))]
    notes[0] += "; ◂ ▸: off the scale" if outside else ""
    if len(paper):
        notes.append(f"diamonds: the paper's {paper['model'].iloc[0]}, on the upper axis, which is shifted")
        notes[-1] += " so that both agree at the dashed line"
    figure.supxlabel("\n".join(notes), fontsize=7)
    return figures.save(figure, path)


def _methods_panel(
    axis: Axes,
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    paper: pd.DataFrame,
    methods: list[Key],
    name: str,
    metric: Metric,
) -> bool:
    """Draws a metric; says whether something is off the scale."""
    means = dict(zip(naming.keys(cells), metric.scale * cells[name], strict=True))
    intervals = dict(zip(naming.keys(cells), metric.scale * cells[f"{name}_interval"], strict=True))
    base = next((key for label in REFERENCES[::-1] if (key := reference(cells, label))), None)
    beside, shift = _beside(means, paper, name, metric, base)
    values = metric.scale * runs["value"]
    limits = low, high = _limits([*means.values(), *(value - shift for _, value in beside)], [*values])
    outside = False
    for key, mean in means.items():
        y, colour = methods.index(key), FAMILY_COLOURS[naming.family(key[0])]
        if _mark_outside(axis, mean, y + BESIDE / 2, limits, colour):
            outside = True
            continue
        bar = {"xerr": intervals[key], "elinewidth": 1.2, "capsize": 2}
        axis.errorbar(mean, y, color=colour, marker="o", markersize=4.5, **bar)
        own = values[(runs[METHOD] == list(key)).all(axis=1)]
        if len(own) > 1:
            inside = own[own.between(low, high)]
            axis.scatter(inside, [y + BESIDE] * len(inside), s=8, color=colour, alpha=0.6, linewidths=0)
            outside |= len(inside) < len(own)
    for key, value in beside:
        above = methods.index(key) - BESIDE
        axis.scatter(value - shift, above, marker="D", s=12, facecolors="none", edgecolors=GREY, linewidths=0.8)
        outside |= _mark_outside(axis, value - shift, above, limits, GREY, shift)
    if base:
        axis.axvline(means[base], color="0.55", linewidth=0.8, linestyle="--", zorder=0)
    if beside:
        upper = axis.secondary_xaxis("top", functions=_shifted(shift))
        upper.tick_params(colors=GREY, length=2, pad=1)
    axis.set(xlim=limits, ylim=(len(methods) - 0.4, -0.6))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", linewidth=0.4)
    return outside


def _beside(
    means: Mapping[Key, float], paper: pd.DataFrame, name: str, metric: Metric, base: Key | None
) -> tuple[list[tuple[Key, float]], float]:
    """The paper's number in a metric for each method that has one, and what must be taken from these to stand at ours:
    what they differ by at `base`, or, where the paper has no number for it, on average."""
    if name not in paper:
        return [], 0.0
    found: list[tuple[Key, float]] = []
    for label, rows in paper.dropna(subset=[name]).groupby("label", sort=False):
        keys = [key for key in means if key[0] == label][::-1]  # the largest first
        sizes = rows.sort_values("trainable_params", ascending=False)
        found += list(zip(keys, metric.scale * sizes[name], strict=False))
    gaps = {key: value - means[key] for key, value in found}
    average = sum(gaps.values()) / len(gaps) if gaps else 0.0
    return found, gaps.get(base, average) if base else average


def _limits(means: list[float], runs: list[float]) -> tuple[float, float]:
    """The runs set the scale, not their intervals; but what lies far from the most (Tukey's outer fence) would squeeze
    what is compared into a line."""
    centre = pd.Series(means).dropna()
    lower, upper = centre.quantile([0.25, 0.75])
    reach = max(3 * (upper - lower), 0.03 * abs(centre.median()))
    every = pd.concat([centre, pd.Series(runs)])
    low, high = max(every.min(), lower - reach), min(every.max(), upper + reach)
    margin = max(0.07 * (high - low), 0.005 * abs(centre.median()), 1e-9)
    return low - margin, high + margin


def _mark_outside(axis: Axes, x: float, y: float, limits: tuple[float, float], colour: Any, shift: float = 0.0) -> bool:
    """Where x is not between the limits, writes what it is, plus shift, at the edge; says whether it did."""
    low, high = limits
    if pd.isna(x) or low <= x <= high:
        return False
    left = x < low
    text = f"◂ {x + shift:.3g}" if left else f"{x + shift:.3g} ▸"
    axis.annotate(
        text, (low if left else high, y), (2 if left else -2, 0), textcoords="offset points", color=colour,
        ha="left" if left else "right", va="center", fontsize=6,
    )  # fmt: skip
    return True


def _shifted(by: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A second axis that shows x + by at x: there and back."""
    return lambda x: x + by, lambda x: x - by


def _title(metric: Metric) -> str:
    return metric.heading + (" (%)" if metric.scale == 100 else "")


def draw_ranks(
    scores: pd.DataFrame, table: pd.DataFrame, paper: pd.DataFrame, metrics: Mapping[str, Metric], path: Path
) -> Path:
    """Each metric but the test loss over the rank (log2): a line for each of ours that differ in more than r, and the
    paper's on the right axis, which has the scale of the left one and is shifted so that both agree on average over
    the ranks of both.

    table: of `kit.generation.tabulate`, scores: of its `measured`, both with r and line; paper has r.
    """
    metrics = {name: metric for name, metric in metrics.items() if name != "loss"}
    cells = [(key, name) for key, _ in table.groupby(["model", "task"], sort=False) for name in metrics]
    rows = -(-len(cells) // COLUMNS)
    figure, axes = figures.panels(rows, COLUMNS, figures.PAGE_WIDTH, 2.2 * rows + 0.5)
    lines = dict(zip(table["line"].unique(), sns.color_palette(n_colors=table["line"].nunique()), strict=True))
    ticks = sorted({*table["r"], *paper.get("r", [])})
    for place, (axis, ((model, task), name)) in enumerate(figures.fill(axes.flat, cells)):
        ours = table[(table["model"] == model) & (table["task"] == task)]
        runs = scores[(scores["model"] == model) & (scores["task"] == task) & (scores["metric"] == name)]
        _ranks_panel(axis, runs, ours, paper, name, metrics[name], lines)
        axis.set_xscale("log", base=2)
        fourth = [tick for tick in ticks if math.log2(tick) % 2 == 0]
        shown = fourth if len(ticks) > 6 and len(fourth) > 2 else ticks
        axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axis.minorticks_off()
        axis.grid(axis="y", linewidth=0.4)
        several = f"{task} ({model}): " if len(cells) > len(metrics) else ""
        axis.set(title=several + _title(metrics[name]), xlabel="rank r" if place + COLUMNS >= len(cells) else "")
    drawn = dict(zip(*axes.flat[0].get_legend_handles_labels()[::-1], strict=True))
    labels = sorted(drawn, key=lambda label: label.startswith("paper"))
    handles = [drawn[label] for label in labels]
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    note = figures.interval_note(pd.concat([table[f"{name}_interval"] for name in metrics]))
    if len(paper):
        note += "\nright axes: the paper's, shifted to agree with ours on average; same scale as the left ones"
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def _ranks_panel(
    axis: Axes,
    runs: pd.DataFrame,
    cells: pd.DataFrame,
    paper: pd.DataFrame,
    name: str,
    metric: Metric,
    lines: Mapping[str, Any],
) -> None:
    drawn = [metric.scale * runs["value"]]
    for line, colour in lines.items():
        means, own = cells[cells["line"] == line].sort_values("r"), runs[runs["line"] == line]
        axis.errorbar(
            means["r"], metric.scale * means[name], yerr=metric.scale * means[f"{name}_interval"], color=colour,
            ecolor=(*colour, 0.4), label=f"ours, {line}", marker="o", markersize=4, linewidth=1.2, elinewidth=1,
            capsize=2,
        )  # fmt: skip
        axis.scatter(own["r"], metric.scale * own["value"], s=9, color=colour, linewidths=0)
    if name in paper:
        theirs = metric.scale * paper.set_index("r")[name]
        both = metric.scale * cells.groupby("r")[name].mean()
        shift = float((theirs - both).mean() if theirs.index.isin(both.index).any() else theirs.mean() - both.mean())
        axis.plot(
            theirs.index, theirs - shift, color=GREY, label=f"paper, {paper['model'].iloc[0]}", linestyle="--",
            linewidth=1, marker="D", markersize=3.5, markerfacecolor="none",
        )  # fmt: skip
        right = axis.secondary_yaxis("right", functions=_shifted(shift))
        right.tick_params(colors=GREY, length=2, pad=1)
        drawn.append(theirs - shift)
    every = pd.concat(drawn)
    margin = max(0.08 * (every.max() - every.min()), 0.005 * abs(every.mean()))
    axis.set_ylim(every.min() - margin, every.max() + margin)
