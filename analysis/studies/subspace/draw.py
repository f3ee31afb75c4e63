"""The layouts of the paper's Figures 3, 4, 6 and 7."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from analysis.kit.figures import weight_name
from analysis.kit.heat_maps import Panel, phi_figure
from analysis.kit.phi import VERSIONS, middle, vectors
from analysis.kit.updates import place_name
from analysis.maths.subspace import Baseline
from analysis.maths.svd import Array
from analysis.weights.sites import Site

DEEP = 12  # more layers than that are drawn small, six panels in a row


class Comparison(NamedTuple):
    """phi grids between two adapters, by side (of `kit.phi.SIDES`) and site, and the baseline of each."""

    place: tuple[str, str]
    name: str  # as in file names: r8_r64, or seeds
    label: str  # the two sets of directions in the paper's notation, with a place for A or delta_w
    grids: dict[tuple[str, Site], Array]
    baselines: dict[tuple[str, Site], Baseline]

    @property
    def layers(self) -> list[str]:
        """Layers in the model's order."""
        return list(dict.fromkeys(site.layer for _, site in self.grids))

    @property
    def weight_types(self) -> list[str]:
        """Weight types in the model's order."""
        return list(dict.fromkeys(site.weight_type for _, site in self.grids))


def draw_ranks(comparison: Comparison, study_dir: Path, suffix: str) -> list[Path]:
    """Figures 3 (the middle layer) and 6 (all layers): i up to the small rank and j up to the large one.

    For each layer there is a row with the grids of two weight types, then their zoom on i, j up to the small rank; a
    deep model has three layers in a row, without the zoom.
    """
    paths = []
    types, layers = comparison.weight_types, comparison.layers
    for version, side, symbol in VERSIONS:
        title = _title(comparison, side, symbol)
        one, columns = _with_zoom(comparison, side, [middle(layers)], types)
        paths.append(phi_figure(one, columns, title, study_dir / f"fig3{version}{suffix}.png"))
        if len(layers) > DEEP:
            every, columns = _small(comparison, side), _columns(comparison)
        else:
            every, columns = _with_zoom(comparison, side, layers, types)
        paths.append(phi_figure(every, columns, title, study_dir / f"fig6{version}{suffix}.png"))
    return paths


def _with_zoom(
    comparison: Comparison, side: str, layers: Sequence[str], types: Sequence[str]
) -> tuple[list[Panel | None], int]:
    """The panels, and how many make a row."""
    pairs = [types[start : start + 2] for start in range(0, len(types), 2)]
    width = len(pairs[0])
    panels: list[Panel | None] = []
    for layer in layers:
        for pair in pairs:
            grids = [(name, comparison.grids.get((side, Site(layer, name)))) for name in pair]
            grids += [("", None)] * (width - len(pair))
            row = [_panel(name, grid) for name, grid in grids]
            row += [_panel(name, None if grid is None else grid[:, : len(grid)], zoom=True) for name, grid in grids]
            if row[0]:
                row[0] = row[0]._replace(row_label=f"layer {layer}")
            panels += row
    return panels, 2 * width


def draw_seeds(comparison: Comparison, study_dir: Path, suffix: str) -> list[Path]:
    """Figures 4 (the middle layer, beside two random Gaussian matrices) and 7 (all layers), i and j up to the large
    rank."""
    paths = []
    for version, side, symbol in VERSIONS:
        title, layer = _title(comparison, side, symbol), middle(comparison.layers)
        first = [(site, grid) for (of, site), grid in comparison.grids.items() if of == side and site.layer == layer]
        panels = [_panel(site.weight_type, grid, f"layer {layer}, ") for site, grid in first]
        panels.append(Panel("random Gaussian", comparison.baselines[side, first[0][0]].draw))
        paths.append(phi_figure(panels, min(len(panels), 3), title, study_dir / f"fig4{version}{suffix}.png"))
        path = study_dir / f"fig7{version}{suffix}.png"
        paths.append(phi_figure(_small(comparison, side), _columns(comparison), title, path))
    return paths


def _small(comparison: Comparison, side: str) -> list[Panel | None]:
    """A panel for each layer and weight type, one after the other."""
    sites = [Site(layer, name) for layer in comparison.layers for name in comparison.weight_types]
    return [_panel(site.weight_type, comparison.grids.get((side, site)), f"layer {site.layer}, ") for site in sites]


def _columns(comparison: Comparison) -> int:
    """How many panels of `_small` make a row: the same weight types in every column where that can be."""
    if len(comparison.layers) > DEEP:
        return 6
    return 3 if len(comparison.weight_types) == 3 else 4


def _panel(weight_type: str, grid: Array | None, prefix: str = "", zoom: bool = False) -> Panel | None:
    if grid is None:
        return None
    suffix = rf", $j \leq {len(grid)}$" if zoom else ""
    return Panel(prefix + weight_name(weight_type) + suffix, grid)


def _title(comparison: Comparison, side: str, symbol: str) -> str:
    place = place_name(comparison.place)
    return rf"$\phi({comparison.label.format(symbol=symbol)}, i, j)$   {place}, {vectors(side)}"
