"""Heat maps: of phi as in the paper, a figure of them, and of any numbers that are written into their cells."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from analysis.kit.figures import PAGE_WIDTH, panels, save
from analysis.maths.svd import Array

DARK = 0.45  # of the scale, from which on numbers are white


def heat_map(
    axis: Axes, values: Array, norm: Normalize, write: str = "", numbers: Array | None = None, cmap: str = "rocket_r"
) -> AxesImage:
    """values (rows, columns) as colours; NaN is grey. write: how the cells' numbers are written into them, if they are:
    those of `values`, or others."""
    # Not sns.heatmap: it draws the whole figure once for each panel, minutes for a deep model.
    axis.set_facecolor("0.88")
    image = axis.imshow(values, norm=norm, cmap=cmap, aspect="auto", interpolation="nearest")
    for (row, column), number in np.ndenumerate(values if numbers is None else numbers) if write else ():
        if np.isfinite(number):
            colour = "white" if norm(values[row, column]) > DARK else "black"
            axis.text(column, row, write.format(number), ha="center", va="center", color=colour, fontsize=6)
    axis.tick_params(length=2, pad=1)
    axis.spines[:].set_visible(False)
    return image


class Panel(NamedTuple):
    """One grid of phi: a title and the grid (rows i, columns j); `row_label` names the row of panels it begins."""

    title: str
    grid: Array
    row_label: str = ""


def phi_figure(maps: Sequence[Panel | None], columns: int, title: str, path: Path) -> Path:
    """Heat maps of phi as in the paper's Figures 3, 4, 6 to 8: i downwards from 1, j to the right from 1.

    One colour scale for the figure, from 0 to its largest phi. The maps fill rows of `columns`; None leaves a gap.
    """
    rows = -(-len(maps) // columns)
    figure, axes = panels(rows, columns, PAGE_WIDTH, 0.4 + rows * (0.5 + 0.72 * PAGE_WIDTH / columns))
    top = max(panel.grid.max() for panel in maps if panel)
    for axis, panel in itertools.zip_longest(axes.flat, maps):
        if panel is None:
            axis.axis("off")
            continue
        image = heat_map(axis, panel.grid, Normalize(0, top), cmap="rocket")
        axis.set_title(panel.title)
        axis.set_xlabel("j", labelpad=2)
        axis.set_ylabel(f"{panel.row_label}\ni" if panel.row_label else "i", labelpad=1)
        i, j = (index_ticks(size, 12 if columns <= 4 else 5) for size in panel.grid.shape)
        axis.set_yticks(i - 1, i)
        axis.set_xticks(j - 1, j, rotation=90 if panel.grid.shape[1] > 9 else 0)
    bar = figure.colorbar(image, ax=axes, aspect=12 * rows + 10, fraction=0.03, pad=0.01)
    bar.set_label(rf"$\phi$, scale 0 to {top:.2f}")
    figure.suptitle(title)
    return save(figure, path)


def index_ticks(size: int, most: int = 12) -> np.ndarray[tuple[int], np.dtype[np.int_]]:
    """Indices to label on an axis 1..size: all of a short one, else one fewer than `most` (the paper's own for 64)."""
    return np.arange(1, size + 1) if size <= most else np.linspace(1, size * 10 // 11, most - 1).astype(int)
