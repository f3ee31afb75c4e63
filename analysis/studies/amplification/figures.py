"""The figures of the amplification study: along the layers, a line a rank."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures
from analysis.studies.amplification.tables import GROUP, logs


def draw_factors(rows: pd.DataFrame, path: Path) -> Path:
    """The amplification factor along the layers: a panel for each place and weight type, a line a rank."""
    note = "dotted: random directions, for the same norm of delta_w"
    return _draw(rows, "factor", "amplification factor", "Amplification factor", note, path)


def draw_projections(rows: pd.DataFrame, path: Path) -> Path:
    """||U^T W V||_F in delta_w's directions over its mean in random ones; the band holds 95% of random ones, and a
    dashed line is what W's own top r directions have."""
    title = r"$\|U^\top W V\|_F$ in the directions of $\Delta W$"
    note = "bands: 95% of random directions; dashed: W's own top r directions"
    return _draw(rows, "over_random", "times the mean of random directions", title, note, path)


def _draw(rows: pd.DataFrame, ratio: str, label: str, title: str, note: str, path: Path) -> Path:
    panels = list(rows.groupby(GROUP, sort=False))
    columns = rows["weight_type"].nunique()
    lines = -(-len(panels) // columns)
    figure, axes = figures.panels(lines, columns, figures.PAGE_WIDTH, 0.8 + 2.1 * lines, sharey=True)
    ranks = sorted(rows["r"].unique())
    for axis, ((model, task, weight_type), group) in zip(axes.flat, panels, strict=False):
        _panel(axis, group, ratio, ranks)
        axis.set_title(f"{figures.weight_name(str(weight_type))}, {task} ({model})")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        figures.plain_log(axis.yaxis)
    figure.supylabel(label, fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.suptitle(title)
    seeds = "lines: geometric mean over seeds; thin lines: single seeds; " if rows["seed"].nunique() > 1 else ""
    figure.supxlabel(seeds + note, fontsize=7)
    return figures.save(figure, path)


def _panel(axis: Axes, group: pd.DataFrame, ratio: str, ranks: Sequence[int]) -> None:
    """One panel on a log scale."""
    layers = list(dict.fromkeys(group["layer"]))
    group = group.assign(value=logs(group, ratio), place=group["layer"].map(layers.index))
    for r, colour in zip(ranks, sns.color_palette(n_colors=len(ranks)), strict=True):
        mine = group[group["r"] == r].sort_values("place")
        for _, run in mine.groupby("run_id"):
            axis.plot(run["place"], np.exp(run["value"]), color=colour, linewidth=0.5, alpha=0.5)
        mean = np.exp(mine.groupby("place")["value"].mean())
        axis.plot(mean.index, mean, color=colour, marker="o", markersize=2.5, linewidth=1.3, label=f"r = {r}")
        chance = mine.drop_duplicates("place")  # W is the same in all runs
        if ratio == "over_random":
            low, high, top = (
                chance[name] / chance["projection_random"]
                for name in ("projection_random_low", "projection_random_high", "projection_w")
            )
            axis.fill_between(chance["place"], low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(chance["place"], top, color=colour, linestyle="--", linewidth=0.9)
        else:
            random = np.exp(logs(mine, "random_factor").groupby(mine["place"]).mean())
            axis.plot(random.index, random, color=colour, linestyle=":", linewidth=1)
    axis.axhline(1, color="0.4", linewidth=0.7, zorder=0)
    axis.set_yscale("log")
    figures.layer_axis(axis, layers)
    axis.grid(axis="y", linewidth=0.4)
