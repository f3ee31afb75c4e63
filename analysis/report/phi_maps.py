"""Grids of phi as the page has them, which says i, j, phi and chance at the pointer.

From the files of a study, those with a row for each i and columns j1, j2, …: of the side that the paper's figures are
of, the first pair of runs of each file, or the mean over seeds.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.maths.svd import Array

SIDE = "A"
FILES = ("phi_r*_r*.csv", f"phi_seeds_{SIDE}*.csv", "maps.csv")
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
TOP = len(DIGITS) ** 2 - 1  # two digits a value: a step is 0.00024


def read(folder: Path) -> list[dict[str, Any]]:
    """The maps of a study, each with a title, i, j, and for each layer and weight type the grid; none without files."""
    paths = [path for pattern in FILES for path in sorted(folder.glob(pattern))]
    return [found for path in paths for found in _maps(pd.read_csv(path, dtype={"layer": str}))]


def _maps(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    rows = rows[rows["side"] == SIDE]
    by = [name for name in ("model", "task", "r") if name in rows]
    for key, own in rows.groupby(by, sort=False):
        pair = "other_run_id" in own
        if pair:
            first = own[["run_id", "other_run_id"]].iloc[0]
            own = own[(own[["run_id", "other_run_id"]] == first).all(axis=1)]
        names = [name for name in map(str, own) if name[0] == "j" and name[1:].isdigit() and own[name].notna().all()]
        i, j = sorted(own["i"].unique().tolist()), [int(name[1:]) for name in names]
        about = f"{key[1]} ({key[0]})"
        if pair:
            what = f"two seeds of r = {j[-1]}" if i[-1] == j[-1] else f"r = {i[-1]} and r = {j[-1]}"
        else:
            what = f"W and A of r = {key[2]}, mean over {own['run_id'].nunique()} seeds"
        yield {"title": f"{about}: {what}", "i": i, "j": j, "maps": list(_grids(own, names))}


def _grids(rows: pd.DataFrame, names: list[str]) -> Iterator[list[Any]]:
    for (layer, weight_type), own in rows.groupby(["layer", "weight_type"], sort=False):
        grid = own.groupby("i")[names].mean().to_numpy(float)
        yield [layer, weight_type, int(own["dim"].iloc[0]), coded(grid)]


def coded(grid: Array) -> str:
    """Values from 0 to 1, row by row, two digits each."""
    steps = np.rint(np.clip(grid, 0, 1) * TOP).astype(int).ravel()
    return "".join(DIGITS[step // len(DIGITS)] + DIGITS[step % len(DIGITS)] for step in steps)
