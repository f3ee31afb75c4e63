"""Figure 8: heat maps of phi between W and delta_w in the middle layer, and along i over all layers.

A figure that needs what was not kept of runs whose adapters are gone stays as it was drawn from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, phi, updates
from analysis.kit.data import Data
from analysis.kit.heat_maps import Panel, phi_figure
from analysis.kit.measured import Rows
from analysis.kit.updates import PLACE, place_name
from analysis.maths.subspace import random_baseline
from experiments.progress import report as say

FLOOR = 0.1  # of the curves: by chance a single direction may share next to nothing


def maps(data: Data, stored: Mapping[str, Rows]) -> list[Path]:
    """fig8<version><suffix>.png for each place."""
    paths = []
    for name, rows in stored.items():
        if name.startswith("maps") and rows.missing:
            paths += kept(data, sorted(data.folder.glob(f"fig8*{name.removeprefix('maps')}.png")))
        elif name.startswith("maps"):
            paths += _maps(rows.frame, name.removeprefix("maps"), data.folder)
    return paths


def kept(data: Data, paths: Sequence[Path]) -> list[Path]:
    """Of the paths those that are there, and says that they stay."""
    found = [path for path in paths if path.is_file()]
    if found:
        names = ", ".join(path.name for path in found)
        say(f"{data.folder}: kept as drawn, for what they show was not stored: {names}")
    return found


def _maps(maps: pd.DataFrame, suffix: str, study_dir: Path) -> list[Path]:
    """As in the paper, the mean over seeds: a row a weight type, a column a rank, and random directions last."""
    paths = []
    for version, side, symbol in phi.VERSIONS:
        mine = maps[maps["side"] == side]
        panels: list[Panel | None] = []
        for weight_type, cells in mine.groupby("weight_type", sort=False):
            row = []
            for r, same in cells.groupby("r"):
                grid = np.mean([phi.whole(rows) for _, rows in same.groupby("run_id")], axis=0)
                row.append(Panel(f"r = {r}", grid))
            shown, most = row[-1].grid.shape
            draw = random_baseline(shown, most, int(cells["dim"].iloc[0]), draws=1).draw
            row.append(Panel("random directions", draw))
            panels += [row[0]._replace(row_label=rf"$W_{{{weight_type}}}$"), *row[1:]]
        where = f"layer {mine['layer'].iloc[0]}, {place_name(tuple(maps[PLACE].iloc[0]))}"
        title = rf"$\phi(W, {symbol}_r, i, j)$   {where}, {phi.vectors(side)}"
        path = study_dir / f"fig8{version}{suffix}.png"
        paths.append(phi_figure(panels, len(panels) // mine["weight_type"].nunique(), title, path))
    return paths


def curves(data: Data, stored: Mapping[str, Rows], path: Path) -> Path | list[Path]:
    """phi(i, r) over its mean by chance, against i: a row a place, a column a side and weight type, a line a rank. A
    place of which a run's curves were not stored is left out, which is said."""
    curves, chance, runs = stored["curves"].frame, stored["chance"].frame, updates.each(data)
    lost = runs[runs["run_id"].isin([run_id for (run_id,) in stored["curves"].missing])]
    without = [tuple(map(str, place)) for place in lost[PLACE].drop_duplicates().itertuples(index=False)]
    if without:
        names = ", ".join(map(place_name, without))
        say(f"{data.folder}: {path.name} is without {names}, of which no curves were stored")
    places = [found for found in curves.groupby(PLACE, sort=False) if found[0] not in without] if len(curves) else []
    if not places:
        return kept(data, [path])
    kinds = sorted(
        dict.fromkeys(zip(curves["side"], curves["weight_type"], strict=True)),
        key=lambda kind: kind[0] == "delta_w_left",
    )
    ranks = sorted(curves["r"].unique())
    size = figures.PAGE_WIDTH, 0.9 + 2.0 * len(places)
    figure, axes = figures.panels(len(places), len(kinds), *size, sharey=True, sharex="row")
    for line, ((model, task), cells) in zip(axes, places, strict=True):
        for axis, (side, weight_type) in zip(line, kinds, strict=True):
            for r, colour in zip(ranks, sns.color_palette(n_colors=len(ranks)), strict=True):
                mine = cells[(cells["r"] == r) & (cells["side"] == side) & (cells["weight_type"] == weight_type)]
                if len(mine):
                    _line(axis, mine, chance, colour, f"r = {r}")
            axis.axhline(1, color="0.4", linewidth=0.7, zorder=0)
            axis.set(xscale="log", yscale="log", xlabel="i")
            figures.plain_log(axis.xaxis, small=True)
            end = "outputs" if side == "delta_w_left" else "inputs"
            axis.set_title(f"{figures.weight_name(weight_type)}, {end}")
        line[0].set_ylabel(f"{task} ({model})\n" + r"$\phi(i, r)$, times chance")
        line[0].set_ylim(bottom=max(line[0].get_ylim()[0], FLOOR))
        figures.plain_log(line[0].yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ranks), frameon=False)
    note = "lines: median over layers, shaded: from the smallest to the largest; dotted: 95% of random directions"
    dims = " or ".join(map(str, sorted(curves["dim"].unique())))
    figure.supxlabel(f"{note}; i: top directions of W, of {dims}", fontsize=7)
    return figures.save(figure, path)


def _line(axis: Axes, mine: pd.DataFrame, chance: pd.DataFrame, colour: tuple[float, ...], label: str) -> None:
    """The ratio to chance over all layers, of means over seeds, and the interval of chance."""
    by_chance = chance.merge(mine[["dim", "r", "many"]].iloc[:1])
    kept = by_chance["i"].map(lambda i: f"i{i}" in mine)
    by_chance = by_chance[(by_chance["j"] == by_chance["r"]) & kept]
    i, mean = by_chance["i"], by_chance["chance_mean"].to_numpy()
    ratios = mine.groupby("layer", sort=False)[[f"i{at}" for at in i]].mean().to_numpy() / mean
    axis.plot(i, np.median(ratios, axis=0), color=colour, linewidth=1.3, label=label)
    axis.fill_between(i, ratios.min(axis=0), ratios.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    for bound in ("chance_low", "chance_high"):
        axis.plot(i, by_chance[bound] / mean, color=colour, linestyle=":", linewidth=0.8)
