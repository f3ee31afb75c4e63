"""Pictures of language models' scores against a size: trained parameters, training examples, demonstrations."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures, scaling_figure

COMMONEST = "always the commonest answer"


class Style(NamedTuple):
    """How a line is drawn: its colour and marker, and whether its points are joined."""

    colour: object
    marker: str
    joined: bool


def styles(points: pd.DataFrame) -> dict[str, Style]:
    """A style for every line of a frame with the columns label and line, ours and the paper's: methods without a size
    are single black points, the others have a colour and a marker each."""
    names = scaling_figure.lines(points)
    sized = [name for name in names if name not in scaling_figure.POINTS]
    colours = sns.color_palette("colorblind" if len(sized) <= 10 else "husl", n_colors=len(sized))
    markers = itertools.cycle(scaling_figure.MARKERS)
    drawn = {name: Style(colour, marker, True) for name, colour, marker in zip(sized, colours, markers, strict=False)}
    return {name: drawn.get(name) or Style("black", scaling_figure.POINTS[name] or "d", False) for name in names}


def panel(
    axis: Axes, means: pd.DataFrame, runs: pd.DataFrame | None, x: str, of: Mapping[str, Style], apart: float = 0
) -> None:
    """Scores in percent against x, a line for each `line`: means with bars of their intervals and, if runs are given, a
    small point for each. Lines are set `apart` decades, so that what is at one x is not covered.

    means has line, mean, x and, beside runs, interval; runs has line, value and x.
    """
    drawn = [name for name in of if name in set(means["line"])]
    for place, name in enumerate(drawn):
        style, cells = of[name], means[means["line"] == name].sort_values(x)
        shift = 10 ** (apart * (place - (len(drawn) - 1) / 2))
        at, mean = cells[x] * shift, 100 * cells["mean"]
        axis.plot(
            at, mean, color=style.colour, marker=style.marker, markersize=7 if style.marker == "*" else 4.5,
            linestyle="-" if style.joined else "", linewidth=1.2, label=name, zorder=3,
        )  # fmt: skip
        if runs is not None:
            bars = 100 * cells["interval"]
            axis.errorbar(at, mean, bars, color=style.colour, linestyle="", elinewidth=0.9, capsize=1.5, alpha=0.45)
            seeds = runs[runs["line"] == name]
            found = seeds[x] * shift, 100 * seeds["value"]
            axis.scatter(*found, s=9, color=style.colour, edgecolor="white", linewidths=0.3, zorder=2.5)
    axis.grid(axis="y", linewidth=0.4)


def _limits(axis: Axes, *values: pd.Series | float) -> None:
    """The scale from the lowest to the highest of scores: runs set it, not their intervals."""
    found = np.concatenate([np.atleast_1d(100 * np.asarray(part, dtype=float)) for part in values])
    margin = max(0.5, 0.06 * np.ptp(found))
    axis.set_ylim(found.min() - margin, found.max() + margin)


def _floor(axis: Axes, shares: Sequence[float]) -> None:
    for share in shares:
        axis.axhline(100 * share, color="0.5", linestyle=":", linewidth=1, label=COMMONEST, zorder=0)


def draw_tradeoff(points: pd.DataFrame, runs: pd.DataFrame, paper: pd.DataFrame, path: Path) -> Path:
    """Quality against trained parameters: a panel a task of ours above, a panel a task of the paper below.

    points and paper have label, line, model, task, metric, size and mean, points interval too; runs has value and size.
    """
    ours, theirs = (list(frame.groupby(["model", "task"], sort=False)) for frame in (points, paper))
    columns = min(max(len(ours), len(theirs)), 3)
    rows = -(-len(ours) // columns)
    figure, axes = figures.panels(rows + 1, columns, figures.PAGE_WIDTH, 2.5 * (rows + 1) + 0.9)
    of = styles(pd.concat([points, paper]))
    for axis, ((model, task), means) in figures.fill(axes[:-1].flat, ours):
        mine = runs[(runs["model"] == model) & (runs["task"] == task)]
        panel(axis, means, mine, "size", of)
        _limits(axis, means["mean"], mine["value"])
        axis.set(xscale="log", xlabel="trained parameters", ylabel=f"test {means['metric'].iloc[0]} (%)")
        axis.set_title(f"{task} ({model})")
    for axis, ((model, task), means) in figures.fill(axes[-1], theirs):
        panel(axis, means, None, "size", of)
        _limits(axis, means["mean"])
        axis.set(xscale="log", xlabel="trained parameters", ylabel="accuracy (%)")
        axis.set_title(f"paper: {task} ({model})")
    _legend(figure, axes, list(of))
    figure.supxlabel(figures.interval_note(points["interval"]), fontsize=7)
    return figures.save(figure, path)


def draw_examples(
    points: pd.DataFrame, runs: pd.DataFrame, paper: pd.DataFrame, floors: Mapping[tuple[str, str], float], path: Path
) -> Path:
    """Quality against training examples: a panel a task of ours, and the paper's Table 16 last.

    points and paper have label, line, model, task, metric, train_examples and mean, points interval too; runs has value
    and train_examples; floors is what an answer that is always the same reaches, by model and task.
    """
    ours = list(points.groupby(["model", "task"], sort=False))
    columns = min(len(ours) + 1, 3)
    rows = -(-(len(ours) + 1) // columns)
    figure, axes = figures.panels(rows, columns, figures.PAGE_WIDTH, 2.9 * rows + 0.5)
    # Every method has a line here, also those without a size of their own.
    of = {name: style._replace(joined=True) for name, style in styles(pd.concat([points, paper])).items()}
    for ((model, task), means), axis in zip(ours, axes.flat, strict=False):
        mine = runs[(runs["model"] == model) & (runs["task"] == task)]
        low = [share for place, share in floors.items() if place == (model, task)]
        panel(axis, means, mine, "train_examples", of, apart=0.03)
        _limits(axis, means["mean"], mine["value"], *low)
        _floor(axis, low)
        axis.set_xscale("log")
        _sizes(axis, means["train_examples"])
        axis.set(title=f"{task} ({model})", ylabel=f"test {means['metric'].iloc[0]} (%)")
    last, *empty = axes.flat[len(ours) :]
    panel(last, paper, None, "train_examples", of)
    _limits(last, paper["mean"])
    last.set_xscale("log")
    _sizes(last, paper["train_examples"])
    last.set(title=f"paper: {paper['task'].iloc[0]} ({paper['model'].iloc[0]})", ylabel="accuracy (%)")
    for axis in empty:
        axis.axis("off")
    _legend(figure, axes, list(of))
    figure.supxlabel(figures.interval_note(points["interval"]), fontsize=7)
    return figures.save(figure, path)


def draw_shots(table: pd.DataFrame, runs: pd.DataFrame, floors: Mapping[tuple[str, str], float], path: Path) -> Path:
    """Demonstrations or training: a row of panels a task, on one scale, with the best prompt's mean across.

    Left: scores of the frozen model against demonstrations. Right: of trained methods against training examples.

    table is of `studies.table8.few_shot.tabulate`, with line; runs has label, line, value, shots and train_examples;
    floors is as in `draw_examples`.
    """
    tasks = list(table.groupby(["model", "task", "metric"], sort=False))
    figure, axes = figures.panels(len(tasks), 2, figures.PAGE_WIDTH, 2.7 * len(tasks) + 0.5, sharey="row")
    of = {name: style._replace(joined=True) for name, style in styles(table).items()}
    for ((model, task, metric), cells), (left, right) in zip(tasks, axes, strict=True):
        mine = runs[(runs["model"] == model) & (runs["task"] == task)]
        best = cells.loc[cells["best"], "mean"].tolist()
        low = [share for place, share in floors.items() if place == (model, task)]
        frozen = cells["label"] == "frozen"
        panel(left, cells[frozen], mine[mine["label"] == "frozen"], "shots", of)
        panel(right, cells[~frozen], mine, "train_examples", of, apart=0.015)
        right.set_xscale("log", base=2)
        _sizes(left, cells.loc[frozen, "shots"], "demonstrations in the prompt, nothing trained")
        _sizes(right, cells.loc[~frozen, "train_examples"])
        for axis in (left, right):
            for mean in best:
                axis.axhline(100 * mean, color="0.3", linestyle="--", linewidth=0.9, label="best prompt", zorder=0)
            _floor(axis, low)
            _limits(axis, cells["mean"], mine["value"], *low)
            axis.set_title(f"{task} ({model})")
        left.set_ylabel(f"test {metric} (%)")
    _legend(figure, axes, list(of))
    note = figures.interval_note(table.loc[~table["exact"], "interval"], "draws (left) or seeds (right)")
    note += "; without demonstrations nothing is drawn: one score" if table["exact"].any() else ""
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def _sizes(axis: Axes, sizes: pd.Series, label: str = "training examples") -> None:
    ticks = sorted(sizes.unique())
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(label)


def _legend(figure: Figure, axes: Any, order: Sequence[str]) -> None:
    """One legend above all panels, each line once, in the order given; others come last."""
    found = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = sorted(found, key=lambda name: (name not in order, order.index(name) if name in order else 0))
    columns = min(len(names), 5)
    figure.legend([found[name] for name in names], names, loc="outside upper center", ncols=columns, frameon=False)
