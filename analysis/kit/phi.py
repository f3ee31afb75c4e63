"""Grids of phi: the sides of an update that they are of, and as rows of a CSV file, a row for each i, with the columns
j1, j2, …, of which some are left out."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.maths.svd import Array

SIDES = {
    "A": "right singular vectors of A",
    "delta_w_right": "right singular vectors of delta_w",
    "B": "left singular vectors of B",
    "delta_w_left": "left singular vectors of delta_w",
}
# File suffix, side and the symbol that stands in the title, for the four versions of every figure.
VERSIONS = (
    ("", "A", "A"),
    ("_delta_w", "delta_w_right", r"\Delta W"),
    ("_B", "B", "B"),
    ("_delta_w_left", "delta_w_left", r"\Delta W"),
)
ALL = 8  # indices up to which every row and column of a grid is stored


def steps(size: int) -> list[int]:
    """The indices that are stored: 1 to 8, 12, 16, … and the last."""
    return sorted({*range(1, min(ALL, size) + 1), *range(ALL, size, 4), size})


def thin(grid: Array, about: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a grid: `about`, i, j1, …"""
    i, j = (np.array(steps(size)) for size in grid.shape)
    frame = pd.DataFrame(grid[np.ix_(i - 1, j - 1)], columns=[f"j{column}" for column in j])
    return labelled(frame, {**about, "i": i})


def labelled(frame: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """`about` as the first columns of frame."""
    return frame.assign(**about)[[*about, *frame.columns]]


def whole(rows: pd.DataFrame) -> Array:
    """The grid of the rows of `thin`, for all i and j."""
    columns = [name for name in map(str, rows) if re.fullmatch(r"j\d+", name) and rows[name].notna().all()]
    return between(rows[columns].to_numpy(float), rows["i"].tolist(), [int(name[1:]) for name in columns])


def between(values: Array, i: Sequence[int], j: Sequence[int]) -> Array:
    """phi for all i and j up to the last from its values (len(i), len(j)) at some. Between these, what the top i and
    the top j share, min(i, j) phi, grows evenly: as if directions that follow each other shared alike."""
    shared = values * np.minimum.outer(i, j)
    rows, columns = (np.arange(1, index[-1] + 1) for index in (i, j))
    shared = np.stack([np.interp(columns, j, row) for row in shared])
    shared = np.stack([np.interp(rows, i, column) for column in shared.T], axis=1)
    grid: Array = np.minimum(shared / np.minimum.outer(rows, columns), 1.0)
    grid[np.ix_(np.subtract(i, 1), np.subtract(j, 1))] = values
    return grid


def middle(layers: Sequence[str]) -> str:
    """The layer of Figures 3, 4 and 8: the middle one, as the paper's 48th of 96."""
    return layers[(len(layers) - 1) // 2]


def vectors(side: str) -> str:
    """Which singular vectors a side has: right or left ones."""
    return SIDES[side].partition(" of ")[0]


def suffix(place: Sequence[str], places: Collection[Sequence[str]]) -> str:
    """What a file's name ends with where a study is of several places, (model, task): what tells this one from them."""
    parts = [own for own, all_of in zip(place, zip(*places, strict=True), strict=True) if len(set(all_of)) > 1]
    return "".join(f"_{part.replace('/', '_')}" for part in parts)
