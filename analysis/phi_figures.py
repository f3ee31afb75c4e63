"""The layouts of the paper's Figures 3, 4, 6 and 7."""

from pathlib import Path

from analysis.comparison import Comparison, Site
from analysis.figures import Panel, phi_figure, weight_name
from analysis.svd import Array

# File suffix, side and the symbol that stands in the title, for the two versions of every figure.
VERSIONS = (("", "A", "A"), ("_delta_w", "delta_w_right", r"\Delta W"))


def draw_ranks(comparison: Comparison, study_dir: Path, suffix: str) -> list[Path]:
    """Figures 3 (the middle layer) and 6 (all layers): for each layer a row with the grids of two weight types, i up to
    the small rank and j up to the large one, then their zoom on i, j up to the small rank."""
    paths = []
    types, layers = comparison.weight_types, comparison.layers
    pairs = [types[start : start + 2] for start in range(0, len(types), 2)]
    width = len(pairs[0])
    for version, side, symbol in VERSIONS:
        for figure, chosen in (("fig3", [middle(layers)]), ("fig6", layers)):
            panels: list[Panel | None] = []
            for layer in chosen:
                for pair in pairs:
                    grids = [(name, comparison.grids.get((side, Site(layer, name)))) for name in pair]
                    grids += [("", None)] * (width - len(pair))
                    row = [_panel(name, grid) for name, grid in grids]
                    row += [
                        _panel(name, None if grid is None else grid[:, : len(grid)], zoom=True) for name, grid in grids
                    ]
                    if row[0]:
                        row[0] = row[0]._replace(row_label=f"layer {layer}")
                    panels += row
            path = study_dir / f"{figure}{version}{suffix}.png"
            paths.append(phi_figure(panels, 2 * width, _title(comparison, symbol), path))
    return paths


def draw_seeds(comparison: Comparison, study_dir: Path, suffix: str) -> list[Path]:
    """Figures 4 (the middle layer, beside two random Gaussian matrices) and 7 (all layers), i and j up to the large
    rank."""
    paths = []
    types, layers = comparison.weight_types, comparison.layers
    for version, side, symbol in VERSIONS:
        layer = middle(layers)
        first = [(site, grid) for (of, site), grid in comparison.grids.items() if of == side and site.layer == layer]
        panels = [_panel(site.weight_type, grid, f"layer {layer}, ") for site, grid in first]
        panels.append(Panel("random Gaussian", comparison.baselines[side, first[0][0]].draw))
        path = study_dir / f"fig4{version}{suffix}.png"
        paths.append(phi_figure(panels, min(len(panels), 3), _title(comparison, symbol), path))

        grids = [
            (Site(layer, name), comparison.grids.get((side, Site(layer, name)))) for layer in layers for name in types
        ]
        panels = [_panel(site.weight_type, grid, f"layer {site.layer}, ") for site, grid in grids]
        path = study_dir / f"fig7{version}{suffix}.png"
        paths.append(phi_figure(panels, 3 if len(types) == 3 else 4, _title(comparison, symbol), path))
    return paths


def middle(layers: list[str]) -> str:
    """The layer of Figures 3 and 4: the middle one, as the paper's 48th of 96."""
    return layers[(len(layers) - 1) // 2]


def _panel(weight_type: str, grid: Array | None, prefix: str = "", zoom: bool = False) -> Panel | None:
    if grid is None:
        return None
    suffix = rf", $j \leq {len(grid)}$" if zoom else ""
    return Panel(prefix + weight_name(weight_type) + suffix, grid)


def _title(comparison: Comparison, symbol: str) -> str:
    return rf"$\phi({comparison.label.format(symbol=symbol)}, i, j)$   {comparison.task}"
