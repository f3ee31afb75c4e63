"""Figure 8: heat maps of phi between W and delta_w in the middle layer, and along i over all layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from analysis import figures
from analysis.comparison import Place, Site
from analysis.figures import Panel, phi_figure
from analysis.phi_figures import VERSIONS, middle, vectors
from analysis.subspace import Baseline
from analysis.svd import Array

FLOOR = 0.1  # of the curves: by chance a single direction may share next to nothing
PART = 4  # heat maps show the top 1/4 of W's directions: further down all is as by chance


class Curve(NamedTuple):
    """phi(W, delta_w, i, j), the mean over seeds, of one place, rank, site and side."""

    place: Place
    r: int
    site: Site
    side: str
    values: Array
    chance: Baseline


def draw_maps(curves: Sequence[Curve], study_dir: Path) -> list[Path]:
    """fig8<version>.png as in the paper, in the middle layer: a row a weight type, a column a rank, and random
    directions last. With several places each has its own, with model and task in its name."""
    places = list(dict.fromkeys(curve.place for curve in curves))
    paths = []
    for place in places:
        of_place = [curve for curve in curves if curve.place == place]
        layer = middle(list(dict.fromkeys(curve.site.layer for curve in of_place)))
        for version, side, symbol in VERSIONS:
            mine = [curve for curve in of_place if curve.site.layer == layer and curve.side == side]
            types = list(dict.fromkeys(curve.site.weight_type for curve in mine))
            panels: list[Panel | None] = []
            for weight_type in types:
                found = sorted((curve for curve in mine if curve.site.weight_type == weight_type), key=lambda c: c.r)
                shown = max(1, found[0].chance.dim // PART)
                row = [Panel(f"r = {curve.r}", curve.values[:shown]) for curve in found]
                row.append(Panel("random directions", found[-1].chance.draw[:shown]))
                panels += [row[0]._replace(row_label=rf"$W_{{{weight_type}}}$"), *row[1:]]
            suffix = place.suffix(places)
            title = rf"$\phi(W, {symbol}_r, i, j)$   layer {layer}, {place.task} ({place.model}), {vectors(side)}"
            path = study_dir / f"fig8{version}{suffix}.png"
            paths.append(phi_figure(panels, len(panels) // len(types), title, path))
    return paths


def draw_curves(curves: Sequence[Curve], path: Path) -> Path:
    """phi(i, r) over its mean by chance, against i: a row a place, a column a side and weight type, a line a rank."""
    own = [curve for curve in curves if curve.side in ("delta_w_right", "delta_w_left")]
    places = list(dict.fromkeys(curve.place for curve in own))
    kinds = sorted(
        dict.fromkeys((curve.side, curve.site.weight_type) for curve in own), key=lambda kind: kind[0] == "delta_w_left"
    )
    ranks = sorted({curve.r for curve in own})
    size = figures.PAGE_WIDTH, 0.9 + 2.0 * len(places)
    figure, axes = figures.panels(len(places), len(kinds), *size, sharey=True, sharex="row")
    for line, place in zip(axes, places, strict=True):
        for axis, (side, weight_type) in zip(line, kinds, strict=True):
            for r, colour in zip(ranks, sns.color_palette(n_colors=len(ranks)), strict=True):
                mine = [c for c in own if (c.place, c.side, c.r) == (place, side, r)]
                mine = [c for c in mine if c.site.weight_type == weight_type]
                if mine:
                    _line(axis, mine, colour, f"r = {r}")
            axis.axhline(1, color="0.4", linewidth=0.7, zorder=0)
            axis.set(xscale="log", yscale="log", xlabel="i")
            figures.plain_log(axis.xaxis, small=True)
            end = "outputs" if side == "delta_w_left" else "inputs"
            axis.set_title(f"{figures.weight_name(weight_type)}, {end}")
        line[0].set_ylabel(f"{place.task} ({place.model})\n" + r"$\phi(i, r)$, times chance")
        line[0].set_ylim(bottom=max(line[0].get_ylim()[0], FLOOR))
        figures.plain_log(line[0].yaxis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(ranks), frameon=False)
    note = "lines: median over layers, shaded: from the smallest to the largest; dotted: 95% of random directions"
    figure.supxlabel(f"{note}; i: top directions of W, of {_dims(own)}", fontsize=7)
    return figures.save(figure, path)


def _line(axis: Axes, mine: Sequence[Curve], colour: tuple[float, ...], label: str) -> None:
    """The ratio to chance over all layers, and the interval of chance, which is the same in each."""
    chance = mine[0].chance.mean[:, -1]
    ratios = np.stack([curve.values[:, -1] / curve.chance.mean[:, -1] for curve in mine])
    i = np.arange(1, ratios.shape[1] + 1)
    axis.plot(i, np.median(ratios, axis=0), color=colour, linewidth=1.3, label=label)
    axis.fill_between(i, ratios.min(axis=0), ratios.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    for bound in (mine[0].chance.low, mine[0].chance.high):
        axis.plot(i, bound[:, -1] / chance, color=colour, linestyle=":", linewidth=0.8)


def _dims(curves: Sequence[Curve]) -> str:
    dims = sorted({curve.chance.dim for curve in curves})
    return " or ".join(map(str, dims))
