"""The layout of the paper's Figure 2: quality against trained parameters, ours above and the paper's points below."""

import itertools
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, naming

MARKERS = "osD^vP<>"
POINTS = {"full": "*", "bitfit": "X", "ft_top2": "P", "head_only": ""}  # no lines; in black; head_only has no size


def draw(points: pd.DataFrame, test: pd.DataFrame, paper: pd.DataFrame, path: Path) -> Path:
    """A panel a task of ours, with 95% intervals and a small point for each run, and a panel a task of the paper.

    points and paper have the columns label, line, size, mean (a fraction) and, ours, interval; test holds the runs.
    """
    ours, theirs = (list(frame.groupby(["model", "task"], sort=False)) for frame in (points, paper))
    columns = min(max(len(ours), len(theirs)), 3)
    rows = -(-len(ours) // columns) + 1
    figure, axes = figures.panels(rows, columns, figures.PAGE_WIDTH, 2.35 * rows + 0.8)
    styles = _styles(pd.concat([points, paper]))
    for axis, ((model, task), means) in figures.fill(axes[:-1].flat, ours):
        runs = test[(test["model"] == model) & (test["task"] == task)].merge(means[["label", "settings", "size"]])
        _panel(axis, means, runs, styles)
        head = "without the head's" if means["without_head"].notna().all() else "with the head's"
        axis.set(title=f"{task} ({model})", xlabel=f"trained parameters, {head}")
        axis.set_ylabel(f"test {means['metric'].iloc[0]} (%)")
    for axis, ((model, task), means) in figures.fill(axes[-1], theirs):
        _panel(axis, means, None, styles)
        axis.set(title=f"paper, Table 15: {task} ({model})", xlabel="trained parameters", ylabel="accuracy (%)")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    names = sorted(handles, key=list(styles).index)
    shown = [handles[name] for name in names]
    if len(ours) % columns:
        axes[-2, -1].legend(shown, names, loc="center", ncols=2, frameon=False)
    else:
        figure.legend(shown, names, loc="outside upper center", ncols=5, frameon=False)
    figure.supxlabel(figures.interval_note(points["interval"]), fontsize=7)
    return figures.save(figure, path)


def lines(points: pd.DataFrame) -> list[str]:
    """The lines of a frame with the columns label and line: points, LoRA by its weight types, then the others."""
    labels = dict(zip(points["line"], points["label"], strict=True))

    def place(name: str) -> tuple[bool, bool, tuple[int, int, str], int, str]:
        label = labels[name]
        return label not in POINTS, label != "lora", naming.order(label), name.count("+"), name

    return sorted(labels, key=place)


def _styles(points: pd.DataFrame) -> dict[str, tuple[object, str]]:
    """Colour and marker of every line, the same in all panels."""
    names = lines(points)
    drawn = [name for name in names if name not in POINTS]
    colours = sns.color_palette("colorblind" if len(drawn) <= 10 else "husl", n_colors=len(drawn))
    coloured = dict(zip(drawn, zip(colours, itertools.cycle(MARKERS), strict=False), strict=False))
    return {name: coloured.get(name) or ("black", POINTS[name]) for name in names}


def _panel(axis: Axes, means: pd.DataFrame, runs: pd.DataFrame | None, styles: dict[str, tuple[object, str]]) -> None:
    for name, line in means.groupby("line", sort=False):
        colour, marker = styles[str(name)]
        line = line.sort_values("size")
        if name == "head_only":
            axis.axhline(100 * line["mean"].iloc[0], color="0.5", linestyle=":", linewidth=1, label=name)
            continue
        bars = None if runs is None else 100 * line["interval"]
        axis.errorbar(
            line["size"], 100 * line["mean"], yerr=bars, color=colour, label=name, marker=marker, linewidth=1.2,
            linestyle="" if name in POINTS else "-", markersize=7 if marker == "*" else 4.5, elinewidth=0.8,
            capsize=1.5,
        )  # fmt: skip
        if runs is not None:
            seeds = runs[runs["line"] == name]
            axis.scatter(seeds["size"], 100 * seeds["value"], s=5, color=colour, alpha=0.4, linewidths=0)
    values = 100 * (means["mean"] if runs is None else runs["value"])
    margin = max(0.5, 0.06 * (values.max() - values.min()))
    axis.set(xscale="log", ylim=(values.min() - margin, values.max() + margin))
    axis.grid(axis="y", linewidth=0.4)
