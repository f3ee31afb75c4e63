"""Pictures of adapters side by side: their spectra, phi of one layer, and where phi(1,1) is above chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, MaxNLocator

from analysis.compare.measures import SIDES, Measured, Module
from analysis.compare.tables import first_entry
from analysis.kit.figures import PAGE_WIDTH, panels, save, weight_name
from analysis.kit.heat_maps import Panel, heat_map, phi_figure

FEW = 12  # layers up to which the cells of `draw_chance` carry their numbers


class _Plain(LogFormatter):
    """Labels the same ticks, with plain numbers."""

    def __call__(self, x: float, pos: Any = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def draw_spectra(index: int, name: str, measured: Sequence[Measured], path: Path) -> Path | None:
    """Singular values of one adapter's updates, a panel a weight type and a line a layer; None if all are zero."""
    own = [(m.module, m.spectra[index]) for m in measured if index in m.spectra and m.spectra[index].any()]
    types = list(dict.fromkeys(module.weight_type for module, _ in own))
    if not types:
        return None
    layers = list(dict.fromkeys(module.layer for module, _ in own))
    colours = plt.get_cmap("viridis", len(layers))(range(len(layers)))
    columns = min(4, len(types))
    rows = -(-len(types) // columns)
    figure, axes = panels(rows, columns, PAGE_WIDTH, 0.7 + 2.1 * rows, sharey=True)
    for axis in axes.flat[len(types) :]:
        axis.axis("off")
    for weight_type, axis in zip(types, axes.flat, strict=False):
        for module, values in own:
            if module.weight_type == weight_type:
                shown = values[values > values[0] * 1e-12]
                axis.plot(np.arange(1, len(shown) + 1), shown, color=colours[layers.index(module.layer)], linewidth=1,
                          marker="o" if len(shown) <= FEW else "", markersize=2.5)  # fmt: skip
        axis.set_yscale("log")
        for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            set_formatter(_Plain(minor_thresholds=(1, 0.4)))
        axis.set_title(weight_name(weight_type))
        axis.set_xlabel("i", labelpad=2)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.grid(axis="y", linewidth=0.4)
    for axis in axes[:, 0]:
        axis.set_ylabel(r"singular value $\sigma_i$")
    _layer_bar(figure, axes, layers)
    figure.suptitle(f"Singular values of ΔW: {_short(name)}")
    return save(figure, path)


def _layer_bar(figure: Figure, axes: Any, layers: Sequence[str]) -> None:
    scale = ScalarMappable(Normalize(-0.5, len(layers) - 0.5), plt.get_cmap("viridis", len(layers)))
    bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.01)
    ticks = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), 8)).astype(int))
    bar.set_ticks(ticks.tolist(), labels=[_short(layers[tick], 12) for tick in ticks])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    bar.set_label("layer")


def middle_layer(modules: Sequence[Module]) -> str | None:
    """The middle one of the modules' layers."""
    layers = list(dict.fromkeys(module.layer for module in modules))
    return layers[len(layers) // 2] if layers else None


def draw_phi(first: int, second: int, names: Sequence[str], measured: Sequence[Measured], path: Path) -> Path | None:
    """phi(i, j) of two adapters in the middle one of the layers that they share, for every weight type and side."""
    shared = [m for m in measured if (first, second, SIDES[0]) in m.grids]
    if not shared:
        return None
    layer = middle_layer([m.module for m in shared])
    there = [m for m in shared if m.module.layer == layer]
    maps = [
        Panel(f"{weight_name(m.module.weight_type)}, {side}", m.grids[first, second, side])
        for m in there
        for side in SIDES
    ]
    where = f"layer {layer}" if layer and layer.isdigit() else _short(str(layer))
    title = f"φ(i, j), {where}: i of {_short(names[first])}, j of {_short(names[second])}"
    return phi_figure(maps, min(4, len(maps)), title, path)


def draw_chance(pair: pd.DataFrame, title: str, path: Path) -> Path:
    """phi(1,1) of every shared module; the colour is phi over the upper end of the interval of random directions."""
    entries = first_entry(pair)
    layers, types = list(dict.fromkeys(entries["layer"])), list(dict.fromkeys(entries["weight_type"]))
    times = np.log2((entries["phi"] / entries["chance_high"]).max())
    top = max(3, int(np.ceil(times)))
    height = 1.5 + 0.27 * len(types) + (0 if all(layer.isdigit() for layer in layers) else 0.6)
    figure, axes = panels(1, len(SIDES), PAGE_WIDTH, height, sharey=True)
    for side, axis in zip(SIDES, axes.flat, strict=True):
        here = entries[entries["side"] == side].drop_duplicates(["weight_type", "layer"])
        value, high = (
            here.pivot(index="weight_type", columns="layer", values=name)
            .reindex(index=types, columns=layers)
            .to_numpy(dtype=float)
            for name in ("phi", "chance_high")
        )
        colour = np.log2((value / high).clip(min=1))
        write = "{:.2f}" if len(layers) <= FEW else ""
        image = heat_map(axis, colour, Normalize(0, top), write, value)
        step = -(-len(layers) // FEW)
        axis.set_xticks(range(0, len(layers), step), [_short(layer, 12) for layer in layers[::step]],
                        rotation=0 if all(layer.isdigit() for layer in layers) else 90)  # fmt: skip
        axis.set_yticks(range(len(types)), [weight_name(weight_type) for weight_type in types])
        axis.set_title(f"{side} singular vectors")
        axis.set_xlabel("layer", labelpad=2)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, ticks=range(0, top + 1, -(-top // 4)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{2**x:g}" if x else "within"))
    bar.outline.set_visible(False)
    bar.set_label("φ(1,1) / chance")
    figure.suptitle(f"φ(1,1): {title}\nchance: the upper end of the 95% interval of random directions")
    return save(figure, path)


def _short(text: str, length: int = 34) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
