"""phi grids as CSV, and the few entries of them that tell the story: beside chance, and as a verdict in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.comparison import SIDES, Comparison, Site
from analysis.svd import Array

PAPER_MARK = 0.5  # the paper finds phi > 0.5 for the top direction of A_r8 and A_r64 (Section 7.2)


def write_grids(compared: Sequence[Comparison], study_dir: Path) -> list[Path]:
    """Writes phi_<ranks>.csv and phi_gaussian.csv, a row for each (i, j), and phi_seeds_<side>.csv, whose grids are far
    larger: a row for each i, with the columns j1, j2, ... With several tasks each has files of its own, and the task in
    their names. Returns their paths."""
    several = len({comparison.task for comparison in compared}) > 1
    parts: dict[str, list[pd.DataFrame]] = {}
    gaussian: dict[tuple[int, ...], pd.DataFrame] = {}
    for comparison in compared:
        for (side, site), grid in comparison.grids.items():
            if comparison.name == "seeds":
                name, frame = f"phi_seeds_{side}", _wide(grid)
            else:
                name, frame = f"phi_{comparison.name}", _long(phi=grid)
            if several:
                name += f"_{comparison.task.replace('/', '_')}"
            about = {"task": comparison.task, "weight_type": site.weight_type, "layer": site.layer, "side": side}
            parts.setdefault(name, []).append(_label(frame, about))
            dim, *grids = comparison.baselines[side, site]
            shape = {"dim": dim, "r_a": grid.shape[0], "r_b": grid.shape[1]}
            key = tuple(shape.values())
            if key not in gaussian:
                gaussian[key] = _label(_long(**dict(zip(("mean", "low", "high", "draw"), grids, strict=True))), shape)
    parts["phi_gaussian"] = list(gaussian.values())
    paths = []
    for name, frames in parts.items():
        paths.append(study_dir / f"{name}.csv")
        pd.concat(frames, ignore_index=True).to_csv(paths[-1], index=False, float_format="%.4f")
    return paths


def _long(**grids: Array) -> pd.DataFrame:
    i, j = np.indices(next(iter(grids.values())).shape) + 1
    return pd.DataFrame({"i": i.ravel(), "j": j.ravel()} | {name: grid.ravel() for name, grid in grids.items()})


def _wide(grid: Array) -> pd.DataFrame:
    rows, columns = grid.shape
    return _label(pd.DataFrame(grid, columns=[f"j{j}" for j in range(1, columns + 1)]), {"i": range(1, rows + 1)})


def _label(frame: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """`about` as the first columns of frame."""
    return frame.assign(**about)[[*about, *frame.columns]]


def tabulate(comparison: Comparison, entries: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """phi at some (i, j) for every side and site, with the mean and the 95% interval of the Gaussian baseline there.

    above_chance: phi is above that interval, as it is once in 40 times by chance.
    """
    sites = [Site(layer, weight_type) for weight_type in comparison.weight_types for layer in comparison.layers]
    rows = []
    for side, site in ((side, site) for side in SIDES for site in sites if (side, site) in comparison.grids):
        grid, chance = comparison.grids[side, site], comparison.baselines[side, site]
        for i, j in entries:
            at = (i - 1, j - 1)
            rows.append({
                "task": comparison.task, "comparison": comparison.name, "side": side, "weight_type": site.weight_type,
                "layer": site.layer, "i": i, "j": j, "phi": grid[at], "gaussian_mean": chance.mean[at],
                "gaussian_low": chance.low[at], "gaussian_high": chance.high[at],
                "above_chance": grid[at] > chance.high[at],
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> list[str]:
    """For each weight type and side of a comparison: in how many layers phi is above chance, and above the paper's 0.5
    at the top direction. Takes the rows of `tabulate`, returns markdown list items."""
    lines = []
    for (weight_type, side), rows in table.groupby(["weight_type", "side"], sort=False):
        top = rows[(rows["i"] == 1) & (rows["j"] == 1)]
        entries = rows.groupby(["i", "j"], sort=False)["above_chance"].sum().reset_index()
        counts = [f"phi({i}, {j}) in {count}" for i, j, count in zip(*entries.to_dict("list").values(), strict=True)]
        lines.append(
            f"- {weight_type}, {SIDES[str(side)]}, {len(top)} layers: above chance {', '.join(counts)} "
            f"({0.025 * len(top):.2g} expected by chance); phi(1, 1) above {PAPER_MARK}, as in the paper, in "
            f"{(top['phi'] > PAPER_MARK).sum()}; its median is {top['phi'].median():.2f}."
        )
    return lines


def by_site(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `tabulate` for reading: a row for each site, a column for each side and (i, j), `*` above chance, and
    the Gaussian baseline, mean [interval], as the last row (two where dimensions differ between sites)."""
    sites: dict[tuple[str, str], dict[str, str]] = {}
    chance: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        column = f"{row['side']} ({row['i']}, {row['j']})"
        cells = sites.setdefault(
            (row["weight_type"], row["layer"]), {"weights": row["weight_type"], "layer": row["layer"]}
        )
        cells[column] = f"{row['phi']:.3f}{'*' if row['above_chance'] else ''}"
        interval = f"{row['gaussian_mean']:.3f} [{row['gaussian_low']:.3f}, {row['gaussian_high']:.3f}]"
        if interval not in chance.setdefault(column, []):
            chance[column].append(interval)
    last = {"weights": "Gaussian"} | {column: " / ".join(intervals) for column, intervals in chance.items()}
    return pd.DataFrame([*sites.values(), last])
