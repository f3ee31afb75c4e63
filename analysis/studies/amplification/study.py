"""How large are the directions of delta_w in W, and how much does it amplify them: the paper's Table 7, Section H.4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, pages, updates
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.maths import amplification
from analysis.studies.amplification import tables
from analysis.studies.amplification.tables import GROUP, logs
from lora.config import InputError

if TYPE_CHECKING:  # which load torch
    from analysis.weights.update_runs import Trained

FILE = "amplification.csv"
COLUMNS = [
    "model", "task", "run_id", "seed", "r", "layer", "weight_type", "norm_w", "norm_delta_w", "projection_delta_w",
    "projection_w", "projection_random", "projection_random_low", "projection_random_high", "amplification",
]  # fmt: skip
READING = """\
||U^T W V||_F is how much of W lies in the directions U, V (left and right): those of delta_w's singular vectors, W's
own top r, which are the most there can be, or random ones (the mean of 100 draws, and the interval that holds 95% of
them; the root of their mean square is exactly r ||W||_F / sqrt(d k)). The amplification factor is ||delta_w||_F divided
by the first: how much larger delta_w is in its directions than W is there. Table 7 is of the middle layer (layers count
from 0), as in the paper: means over seeds. Means of factors are geometric; `a to b`: from the smallest layer to the
largest. [ ]: 95% Student-t interval over seeds; (n): seeds. Tests are paired over seeds, on logarithms, and corrected
for their number by Holm's method.

A larger r spans more of W whatever its directions are: r random ones hold r times as much as one, so that a smaller
factor at a larger rank is no finding by itself. What random directions would give is therefore beside it. And alpha is
the same at every rank, so that delta_w is scaled by alpha / r: its norm, and with it the factor, depends on this too.
{precision}"""


def rows(data: Data) -> pd.DataFrame:
    """The rows of FILE, a row a run and site, complete."""
    stored = updates.rows(data, FILE)
    if stored.missing:
        groups = updates.trained(data, [run_id for (run_id,) in stored.missing])
        stored.add(pd.concat([measure(group) for group in groups], ignore_index=True))
    return stored.frame.sort_values(["model", "task", "r", "seed"], kind="stable", ignore_index=True)


def measure(group: Trained) -> pd.DataFrame:
    """COLUMNS for every run and site: the norms of W and delta_w, and ||U^T W V||_F for the directions of either, and
    of random ones."""
    rows: list[dict[str, Any]] = []
    for site in group.sites:
        W = group.matrix(site)
        norm_w, chance = float(np.linalg.norm(W)), dict[int, amplification.Chance]()
        ranks = [update.rank for _, update in group.at(site) if update.rank]
        S = amplification.top_singular(W, max(ranks, default=1)).S
        for about, update, svd in group.svds(site):
            r = update.rank
            if r is None:
                raise InputError(
                    f"run {about['run_id']} is {about['label']}, whose update has no rank r: this study is of LoRA"
                )
            if r not in chance:
                chance[r] = amplification.random_projection(W, r)
            norm, projection = float(np.linalg.norm(svd.S)), amplification.projection_norm(svd.U, W, svd.Vh.T)
            rows.append(
                {name: about[name] for name in ("model", "task", "run_id", "seed")}
                | {"r": r, "layer": site.layer, "weight_type": site.weight_type}
                | {"norm_w": norm_w, "norm_delta_w": norm, "projection_delta_w": projection}
                | {"projection_w": float(np.linalg.norm(S[:r]))}
                | dict(zip(COLUMNS[11:14], chance[r], strict=True))
                | {"amplification": amplification.amplification(norm, projection)}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def draw(ratio: str, label: str, title: str, note: str) -> Callable[[Data, Path], Path]:
    """A ratio along the layers: a panel for each place and weight type, a line a rank; what there is by chance too."""
    return lambda data, path: _draw(data[FILE], ratio, label, title, note, path)


def _draw(rows: pd.DataFrame, ratio: str, label: str, title: str, note: str, path: Path) -> Path:
    panels = list(rows.groupby(GROUP, sort=False))
    columns = rows["weight_type"].nunique()
    lines = -(-len(panels) // columns)
    figure, axes = figures.panels(lines, columns, figures.PAGE_WIDTH, 0.8 + 2.1 * lines, sharey=True)
    ranks = sorted(rows["r"].unique())
    for axis, ((model, task, weight_type), group) in figures.fill(axes.flat, panels):
        _panel(axis, group, ratio, ranks)
        axis.set_title(f"{figures.weight_name(str(weight_type))}, {task} ({model})")
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


STUDY = Study(
    runs=updates.load,
    cell=["model", "task", "r"],
    base=True,
    measures={FILE: rows},
    tables={"table.csv": lambda data: tables.by_rank(data[FILE])},
    page=[
        "# Amplification (the paper's Table 7 and Section H.4)",
        pages.text(READING, precision=updates.precision),
        pages.under("## What the runs say", lambda data: tables.verdict(data[FILE], tables.compare_ranks(data[FILE]))),
        pages.under("## Table 7", pages.table(lambda data: tables.layout(data[FILE]))),
        pages.sections(
            "## {task} ({model}): all layers",
            pages.table(lambda data: tables.over_layers(data["table.csv"])),
            by=["model", "task"],
        ),
        updates.runs_table,
        pages.failed_runs,
    ],
    figures={
        "amplification.png": draw(
            "factor", "amplification factor", "Amplification factor",
            "dotted: random directions, for the same norm of delta_w",
        ),
        "projections.png": draw(
            "over_random", "times the mean of random directions", r"$\|U^\top W V\|_F$ in the directions of $\Delta W$",
            "bands: 95% of random directions; dashed: W's own top r directions",
        ),
    },
)  # fmt: skip
