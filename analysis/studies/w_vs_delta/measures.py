"""phi between W and delta_w, measured on adapters: at a few i and j, along i, and as the maps of Figure 8."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.kit.phi import ALL, middle, thin
from analysis.maths import amplification
from analysis.maths.subspace import phi, random_baseline
from analysis.maths.svd import Array
from lora.config import InputError

if TYPE_CHECKING:  # which load torch
    from analysis.weights.delta_w import Update
    from analysis.weights.sites import Site
    from analysis.weights.update_runs import Trained

ENDS = {"delta_w_right": "input", "delta_w_left": "output"}

DIRECTIONS = 1024  # of W; all there are in smaller models
TOP = 10  # the top 1/10 of W's directions: the range of the paper's figure, 1,200 of 12,288
LEFT = ("B", "delta_w_left")
PART = 4  # maps have the top 1/4 of W's directions: further down all is as by chance


class Grid(NamedTuple):
    """phi(W, delta_w, i, j) of one run at one site and side (of `kit.phi.SIDES`), for all i and j."""

    about: dict[str, Any]
    site: Site
    side: str
    values: Array
    dim: int  # of the space that the directions are of


class Measures(NamedTuple):
    """What is kept of the grids, tidy: entries, by run, site and side of ENDS; curves, phi(i, r), columns i1, i2, …, of
    the same; maps, rows of `kit.phi`, of the middle layer, by run, weight type and side."""

    entries: pd.DataFrame
    curves: pd.DataFrame
    maps: pd.DataFrame


def measure(groups: list[Trained]) -> Measures:
    """Of every run. Raises InputError if an update is zero or not of LoRA."""
    entries: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    maps: list[pd.DataFrame] = []
    for group in groups:
        layer = middle(list(dict.fromkeys(site.layer for site in group.sites)))
        for grid in _grids(group):
            (many, r), run = grid.values.shape, {name: grid.about[name] for name in ("model", "task", "run_id", "seed")}
            about = run | {"r": r, **grid.site._asdict(), "side": grid.side, "dim": grid.dim, "many": many}
            if grid.side in ENDS:
                entries += [
                    about | {"i": i, "j": j, "top": i == _top(grid.dim, many), "phi": grid.values[i - 1, j - 1]}
                    for i, j in _entries(grid.dim, many, r)
                ]
                curves.append(about | {f"i{i}": grid.values[i - 1, -1] for i in _along(many)})
            if grid.site.layer == layer:
                maps.append(thin(grid.values[: max(1, grid.dim // PART)], about))
    return Measures(pd.DataFrame(entries), pd.DataFrame(curves), pd.concat(maps, ignore_index=True))


def _grids(group: Trained) -> Iterator[Grid]:
    for site in group.sites:
        W = group.matrix(site)
        svd = amplification.top_singular(W, min(*W.shape, DIRECTIONS))
        of_w = {"right": svd.Vh.T, "left": svd.U}
        for about, update in group.at(site):
            for side, directions in sides(about, update).items():
                own = of_w["left" if side in LEFT else "right"]
                yield Grid(about, site, side, phi(own, directions), len(own))


def sides(about: dict[str, Any], update: Update) -> dict[str, Array]:
    """The directions of an update on every side. Raises InputError if it is zero or no product of A and B."""
    from analysis.weights.delta_w import LowRank
    from analysis.weights.sides import sides as of_product

    if not isinstance(update, LowRank):
        raise InputError(
            f"run {about['run_id']} is {about['label']}, whose update has no A and B: this study is of LoRA"
        )
    try:
        return of_product(*update.factors())
    except ValueError as error:
        raise InputError(f"run {about['run_id']}: {update.module}, {update.weight_type}: {error}") from error


def _top(dim: int, many: int) -> int:
    return min(max(1, dim // TOP), many)


def _entries(dim: int, many: int, r: int) -> list[tuple[int, int]]:
    """i = 1, r and the top tenth of W's directions, for j = 1 and r."""
    return list(itertools.product(dict.fromkeys((1, min(r, many), _top(dim, many))), dict.fromkeys((1, r))))


def _along(size: int) -> list[int]:
    """1 to 8, and from there steps of a sixth, to the last: even on a log axis."""
    found = list(range(1, min(ALL, size) + 1))
    while found[-1] < size:
        found.append(min(size, found[-1] + max(1, found[-1] // 6)))
    return found


def chance(dim: int, r: int, many: int) -> pd.DataFrame:
    """dim, r, many, i, j, chance_mean, chance_low, chance_high: phi between `many` directions and r random ones,
    wherever that of a run is kept as an entry or in a curve."""
    at = sorted({*_entries(dim, many, r), *((i, r) for i in _along(many))})
    bounds = zip(("mean", "low", "high"), random_baseline(many, r, dim)[1:4], strict=True)
    i, j = np.transpose(at)
    values = {f"chance_{name}": grid[i - 1, j - 1] for name, grid in bounds}
    return pd.DataFrame({"dim": dim, "r": r, "many": many, "i": i, "j": j} | values)
