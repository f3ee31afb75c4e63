"""Memory in pictures: bytes by kind, others' estimates beside plans, and what fits on a card."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from analysis.kit import figures, naming
from analysis.kit.heat_maps import heat_map
from experiments.measure.memory.units import KINDS, human

GB = 1e9
_PALETTE = sns.color_palette("colorblind")
_COLOURS = dict(zip(KINDS, (_PALETTE[index] for index in (0, 9, 2, 3, 1, 8, 7)), strict=True))
_THEIRS, _OURS = "0.35", _PALETTE[0]


def draw_bytes(panels: Mapping[str, pd.DataFrame], path: Path) -> Path:
    """A panel of stacked bars by its title, all of the same methods: a bar a row of `measure.memory.plans.row`.

    A row is named by its title, if it has one, else by its method. The mark is the peak, which is written beside it.
    """
    frames = list(panels.values())
    height = 1.45 + 0.2 * len(frames[0])
    figure, axes = figures.panels(1, len(frames), figures.PAGE_WIDTH, height, sharex=True, sharey=True)
    top = max(float(max(frame["peak"].max(), frame[list(KINDS)].sum(axis=1).max())) for frame in frames)
    unit, scale = next(((name, size) for name, size in (("GB", GB), ("MB", 1e6)) if top >= size), ("kB", 1e3))
    for axis, (title, frame) in zip(axes[0], panels.items(), strict=True):
        _bars(axis, frame, scale)
        axis.set(title=title, xlabel=unit)
    axes[0, 0].set_yticks(range(len(frames[0])), _names(frames[0]))
    axes[0, 0].set(xlim=(0, 1.22 * top / scale), ylim=(len(frames[0]) - 0.4, -0.6))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] == "peak")
    figure.legend(
        [handles[place] for place in order], [labels[place] for place in order],
        loc="outside upper center", ncols=4, frameon=False,
    )  # fmt: skip
    figure.supxlabel("the peak is below the sum where not all is alive at one time; 1 GB = 10⁹ bytes", fontsize=7)
    return figures.save(figure, path)


def _names(frame: pd.DataFrame) -> list[str]:
    if "title" in frame:
        return list(frame["title"])
    rows = zip(frame["method"], frame["settings"], frame["precision"], strict=True)
    return [f"{naming.title(method, settings)}, {precision}" for method, settings, precision in rows]


def _bars(axis: Axes, frame: pd.DataFrame, scale: float) -> None:
    places, left = np.arange(len(frame)), np.zeros(len(frame))
    for kind, label in KINDS.items():
        shown = {"color": _COLOURS[kind], "label": label, "linewidth": 0}
        axis.barh(places, frame[kind] / scale, left=left / scale, height=0.72, **shown)
        left += frame[kind].to_numpy(dtype=float)
    axis.plot(frame["peak"] / scale, places, "|", color="black", markersize=9, markeredgewidth=1.4, label="peak")
    for place, peak, end in zip(places, frame["peak"], left, strict=True):
        axis.annotate(
            human(peak), (max(peak, end) / scale, place), (4, 0), textcoords="offset points", va="center", fontsize=6.5
        )
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", linewidth=0.4)
    axis.set_axisbelow(True)


def draw_published(published: pd.DataFrame, path: Path) -> Path:
    """Estimates and plans on a logarithmic axis, a panel a size of model, a line a method."""
    sizes, methods = list(published["size"].unique()), list(published["ours"].unique())
    columns = min(3, len(sizes))
    rows = -(-len(sizes) // columns)
    width = figures.PAGE_WIDTH if columns > 1 else 4.5
    figure, axes = figures.panels(rows, columns, width, 0.7 + rows * (0.5 + 0.19 * len(methods)), sharey=True)
    for axis, size in figures.fill(axes.flat, sizes):
        own = published[published["size"] == size].set_index("ours").reindex(methods)
        places = np.arange(len(methods))
        for place, theirs, ours in zip(places, own["theirs"] / GB, own["peak"] / GB, strict=True):
            axis.plot([theirs, ours], [place, place], color="0.75", linewidth=1, zorder=1)
        axis.plot(own["theirs"] / GB, places, "o", color="white", markeredgecolor=_THEIRS, markersize=4.5)
        axis.plot(own["peak"] / GB, places, "o", color=_OURS, markersize=4)
        axis.set_xscale("log")
        figures.plain_log(axis.xaxis)
        axis.set_yticks(places, methods)
        axis.set(title=f"{size}, {own['model'].iloc[0]}", xlabel="GB", ylim=(len(methods) - 0.4, -0.6))
        axis.grid(linewidth=0.4)
    handles = [
        Line2D(
            [], [], linestyle="", marker="o", color="white", markeredgecolor=_THEIRS, label="LLaMA-Factory's estimate"
        ),
        Line2D([], [], linestyle="", marker="o", color=_OURS, label="planned peak"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    first = published.iloc[0]
    setting = f"batch {first['batch']}, length {first['length']}, activations computed again"
    figure.supxlabel(f"plans: {setting}; the estimates do not say theirs", fontsize=7)
    return figures.save(figure, path)


def draw_fits(fits: pd.DataFrame, model: str, path: Path) -> Path:
    """Largest batches by card and length, and beside them the largest lengths of one row; below, with checkpointing.

    fits: the rows of one model of fits.csv.
    """
    cards = sorted(fits["card"].unique())
    asked = fits[fits["asked"] == "batch"]
    lengths = sorted(asked["length"].unique())
    methods = list(fits["method"].unique())
    columns = [(card, length) for card in cards for length in lengths]
    figure, axes = figures.panels(
        2, 2, figures.PAGE_WIDTH, 2.0 + 0.34 * len(methods), width_ratios=(0.56 * len(columns), 0.62 * len(cards))
    )
    norms = {asked: LogNorm(1, max(2, own.max())) for asked, own in _values(fits).groupby("asked")["value"]}
    for row, checkpointing in zip(axes, (False, True), strict=True):
        own = _values(fits[fits["checkpointing"] == checkpointing])
        batches = own[own["asked"] == "batch"].pivot(index="method", columns=["card", "length"], values="value")
        longest = own[own["asked"] == "length"].pivot(index="method", columns="card", values="value")
        _numbers(row[0], batches.reindex(index=methods, columns=pd.MultiIndex.from_tuples(columns)), norms["batch"])
        _numbers(row[1], longest.reindex(index=methods, columns=cards), norms["length"])
        row[0].set_title(f"largest batch, activations {'computed again' if checkpointing else 'kept'}", pad=16)
        row[1].set_title("longest row (tokens)", pad=16)
        row[0].set_xticks(range(len(columns)), [f"{length}" for _, length in columns])
        row[0].set_yticks(range(len(methods)), methods)
        row[1].set_xticks([])
        row[1].set_yticks([])
        for place, card in enumerate(cards):
            first = place * len(lengths)
            _over(row[0], first + (len(lengths) - 1) / 2, card)
            _over(row[1], place, card)
            if place:
                row[0].axvline(first - 0.5, color="black", linewidth=0.8)
    axes[1, 0].set_xlabel("tokens of a row")
    figure.suptitle(f"What fits on one card: {model}")
    reserve = fits["reserve"].iloc[0]
    figure.supxlabel(f"grey: not one row fits; {reserve:g} GiB of each card are kept free (assumed)", fontsize=7)
    return figures.save(figure, path)


def _values(fits: pd.DataFrame) -> pd.DataFrame:
    return fits.assign(value=fits["batch"].where(fits["asked"] == "batch", fits["length"]))


def _over(axis: Axes, x: float, card: float) -> None:
    """Names a card above its columns."""
    axis.annotate(
        f"{card:g} GiB", (x, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", fontsize=7, annotation_clip=False,
    )  # fmt: skip


def _numbers(axis: Axes, grid: pd.DataFrame, norm: LogNorm) -> None:
    values = grid.to_numpy(dtype=float)
    heat_map(axis, np.where(values > 0, values, np.nan), norm, "{:.0f}")
