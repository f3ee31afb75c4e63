"""The figures of the spectrum study: a row a model and task; methods along the axis or as lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.kit import figures, tables
from analysis.studies.spectrum.measures import EPSILONS, FEW, SIDES, TOP
from analysis.studies.spectrum.tables import ENDS, PAIR, by_seed, intruder_counts, place_name
from analysis.weights.update_runs import PLACE

Colour = tuple[float, ...]
SHOWN = {"stable_rank": "stable rank", "effective_rank": "effective rank", "rank_90": "k for 90% of the energy"}
SEEDS = "dots: means over layers, bars: 95% interval over seeds"


def colours(methods: Sequence[str]) -> dict[str, Any]:
    """A colour for each method: light to dark along LoRA's ranks, and black for full fine-tuning."""
    others = [method for method in methods if method != "full"]
    palette = sns.color_palette("viridis_r", len(others) + 1)[1:]
    return dict(zip(others, palette, strict=True)) | {"full": "black"}


def draw_spectra(spectra: pd.DataFrame, methods: Sequence[str], path: Path) -> Path:
    """Singular values over the largest: a panel a place and weight type, a line for each of `methods`, medians over
    layers and seeds."""
    places = list(spectra.groupby(PLACE, sort=False))
    types = _types(spectra["weight_type"])
    figure, axes = figures.panels(len(places), len(types), figures.PAGE_WIDTH, 0.8 + 2.2 * len(places), sharey=True)
    of = colours(methods)
    for line, (place, cells) in zip(axes, places, strict=True):
        for axis, weight_type in zip(line, types, strict=True):
            for method, mine in cells[cells["weight_type"] == weight_type].groupby("method", sort=False):
                median = mine.groupby("index")["value"].median()
                marker = "o" if len(median) == 1 else None
                dashes = "--" if "types" in str(method) else "-"
                axis.plot(
                    median.index, median, dashes, marker=marker, markersize=3, color=of[str(method)], label=method
                )
            axis.set(xscale="log", yscale="log", ylim=(1e-3, 1.3), xlabel="index of the singular value")
            axis.set_title(f"{figures.weight_name(weight_type)}, {place_name(place)}")
            figures.plain_log(axis.xaxis)
        line[0].set_ylabel("share of the largest")
        figures.plain_log(line[0].yaxis)
    legend(figure, axes, methods)
    figure.supxlabel("lines: medians over layers and seeds", fontsize=7)
    return figures.save(figure, path)


def draw_ranks(ranks: pd.DataFrame, path: Path) -> Path:
    """Ranks of the update: a row a place, a column a kind of rank, methods along the axis."""
    places = list(ranks.groupby(PLACE, sort=False))
    types = _types(ranks["weight_type"])
    figure, axes = figures.panels(len(places), len(SHOWN), figures.PAGE_WIDTH, 1.2 + 2.3 * len(places), sharex="row")
    for line, (key, cells) in zip(axes, places, strict=True):
        methods = list(dict.fromkeys(cells["method"]))
        for axis, (column, title) in zip(line, SHOWN.items(), strict=True):
            for index, (weight_type, colour) in enumerate(zip(types, sns.color_palette(), strict=False)):
                means = by_seed(cells[cells["weight_type"] == weight_type], column, ["method"])
                dodge = 0.24 * (index - (len(types) - 1) / 2)
                _dots(axis, means, methods, dodge, colour, figures.weight_name(weight_type))
            axis.set_yscale("log")
            figures.plain_log(axis.yaxis)
            axis.set_title(title)
        _methods(line, methods)
        line[0].set_ylabel(place_name(key))
    legend(figure, axes, [figures.weight_name(weight_type) for weight_type in types])
    figure.supxlabel(SEEDS, fontsize=7)
    return figures.save(figure, path)


def draw_intruders(ranks: pd.DataFrame, path: Path) -> Path:
    """Intruders among the top singular vectors of W + delta_w, beside random directions: columns by epsilon."""
    counts = intruder_counts(ranks)
    places = list(counts.groupby(PLACE, sort=False))
    size = figures.PAGE_WIDTH, 1.2 + 2.1 * len(places)
    figure, axes = figures.panels(len(places), len(EPSILONS), *size, sharey="row", sharex="row")
    labels = {"intruders": "the update", "random": "its singular values, random directions"}
    for line, (key, cells) in zip(axes, places, strict=True):
        methods = list(dict.fromkeys(cells["method"]))
        for axis, epsilon in zip(line, EPSILONS, strict=True):
            mine = cells[cells["epsilon"] == epsilon]
            for (name, label), colour, dodge in zip(labels.items(), ("C3", "0.55"), (-0.1, 0.1), strict=True):
                _dots(axis, mine.rename(columns={name: "value"}), methods, dodge, colour, label)
            axis.set_title(rf"best $|\cos| < {epsilon}$")
        _methods(line, methods)
        line[0].set_ylabel(f"{place_name(key)}\nintruders of {TOP}")
        line[0].set_ylim(-0.05, max(1, line[0].get_ylim()[1]))
    legend(figure, axes, list(labels.values()))
    figure.supxlabel(SEEDS, fontsize=7)
    return figures.save(figure, path)


def draw_overlap(overlap: pd.DataFrame, path: Path) -> Path:
    """phi(k, k) between each method's update and that of full fine-tuning with another seed, beside chance."""
    places = list(overlap.groupby(PLACE, sort=False))
    types = _types(overlap["weight_type"])
    kinds = [(side, weight_type) for side in SIDES for weight_type in types]
    size = figures.PAGE_WIDTH, 1.2 + 2.2 * len(places)
    figure, axes = figures.panels(len(places), len(kinds), *size, sharey=True, sharex="row")
    for line, (key, cells) in zip(axes, places, strict=True):
        methods = list(dict.fromkeys(cells["method"]))
        for axis, (side, weight_type) in zip(line, kinds, strict=True):
            mine = cells[(cells["side"] == side) & (cells["weight_type"] == weight_type)]
            for k, colour, dodge in zip((1, FEW), sns.color_palette(), (-0.14, 0.14), strict=False):
                of = mine[mine["k"] == k]
                _dots(axis, by_seed(of, "phi", ["method"]), methods, dodge, colour, rf"$\phi({k}, {k})$")
                for method, chance in of.groupby("method", sort=False)[["chance_low", "chance_high"]].mean().iterrows():
                    x = methods.index(str(method)) + dodge
                    axis.fill_between([x - 0.12, x + 0.12], *chance, color=colour, alpha=0.3, linewidth=0)
            axis.set(yscale="log", ylim=(1e-3, 1.2))
            figures.plain_log(axis.yaxis)
            axis.set_title(f"{figures.weight_name(weight_type)}, {ENDS[side]}s")
        _methods(line, ["full, other seed" if method == "full" else method for method in methods])
        line[0].set_ylabel(f"{place_name(key)}\nshared with full")
    legend(figure, axes, [rf"$\phi({k}, {k})$" for k in (1, FEW)])
    figure.supxlabel(f"{SEEDS}; boxes: 95% of random subspaces", fontsize=7)
    return figures.save(figure, path)


def _types(found: Sequence[str] | pd.Series) -> list[str]:
    """q and v where they are there, else all weight types, in their order."""
    types = list(dict.fromkeys(found))
    return [name for name in types if name in PAIR] or types


def _dots(axis: Axes, rows: pd.DataFrame, methods: Sequence[str], dodge: float, colour: Any, label: str) -> None:
    """A dot and a bar for each method: the mean of `value` over seeds and its interval."""
    if rows.empty:
        return
    means = tables.summarise(rows, ["method"])
    x = [methods.index(method) + dodge for method in means["method"]]
    axis.errorbar(
        x, means["mean"], yerr=means["interval"], color=colour, label=label, linestyle="none", marker="o",
        markersize=3.5, elinewidth=0.9, capsize=1.5,
    )  # fmt: skip


def _methods(line: Sequence[Axes], methods: Sequence[str]) -> None:
    for axis in line:
        axis.set_xticks(range(len(methods)), methods, rotation=90)
        axis.set_xlim(-0.6, len(methods) - 0.4)
        axis.grid(axis="y", linewidth=0.4)


def legend(figure: Figure, axes: Any, order: Sequence[str]) -> None:
    """One legend above all panels, each label once, in the order given."""
    found = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [name for name in order if name in found]
    columns = min(len(names), 8)
    figure.legend([found[name] for name in names], names, loc="outside upper center", ncols=columns, frameon=False)
