"""Are the directions of delta_w among the top directions of W: the paper's Figure 8."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import amplification, comparison, table_md, tables, update_runs
from analysis.delta_w import LowRank, Update
from analysis.subspace import Baseline, phi, random_baseline
from analysis.svd import Array
from analysis.update_runs import Trained
from analysis.w_vs_delta_figures import Curve, draw_curves, draw_maps
from analysis.w_vs_delta_tables import ENDS, by_rank, shown, verdict
from lora.config import InputError

BASE = True  # reads the pretrained weights
DIRECTIONS = 1024  # of W; all there are in smaller models
TOP = 10  # the top 1/10 of W's directions: the range of the paper's figure, 1,200 of 12,288
READING = """\
phi(W, delta_w, i, j) is the share of delta_w's top-j directions that lies in the top-i of W (or the reverse, if i < j),
from 0 to 1; between random directions it is max(i, j) / dimension. delta_w's directions are its right singular vectors
(inputs) or its left ones (outputs); fig8 is made from A, as in the paper, fig8_B from B. At j = r these span the same
space as delta_w's. i = top 10% is the range of the paper's figure. Above and below chance: outside the interval that
holds 95% of draws of random directions, as 1 in 40 is by chance on either side. Means are over layers and seeds, `(a to
b)` is from the smallest layer to the largest. fig8 is the mean over seeds, its random directions are one draw.
{precision}"""


class Grid(NamedTuple):
    """phi(W, delta_w, i, j) of one run at one site and side (of `analysis.comparison.SIDES`), for all i and j."""

    about: dict[str, Any]
    site: comparison.Site
    side: str
    values: Array
    chance: Baseline


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Writes runs.csv, phi.csv (some i and j of delta_w's directions, of every run and site), table.csv, table.md, and
    the figures: fig8… for each place, in four versions, and curves.png. Returns their paths.

    base: as of `analysis.update_runs.load`. Raises InputError as that does, if an update is zero or not of LoRA, and if
    runs of one rank and seed differ in other settings.
    """
    runs, groups = update_runs.load(study_dir, runs_dir, base)
    tables.check_seeds(runs.drop_duplicates("run_id"), ["model", "task", "r"], study_dir)
    outputs = {name: study_dir / name for name in ("runs.csv", "phi.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    grids = [grid for group in groups for grid in measure(group)]
    rows = pd.DataFrame([row for grid in grids if grid.side in ENDS for row in entries(grid)])
    rows.to_csv(outputs["phi.csv"], index=False, float_format="%.4f")
    table = by_rank(rows)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.4f")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    text = report(rows, table, update_runs.quality(runs), update_runs.precision_note(groups), failed)
    table_md.write(outputs["table.md"], text, runs)
    curves = averaged(grids)
    return [*outputs.values(), *draw_maps(curves, study_dir), draw_curves(curves, study_dir / "curves.png")]


def measure(group: Trained) -> list[Grid]:
    """The grids of every run, site and side."""
    grids = []
    for site in group.sites:
        W = group.matrix(site)
        svd = amplification.top_singular(W, min(*W.shape, DIRECTIONS))
        of_w = {"right": svd.Vh.T, "left": svd.U}
        for about, update in group.at(site):
            for side, directions in sides(about, update).items():
                own = of_w["left" if side in ("B", "delta_w_left") else "right"]
                chance = _chance(own.shape[1], directions.shape[1], own.shape[0])
                grids.append(Grid(about, site, side, phi(own, directions), chance))
    return grids


def sides(about: dict[str, Any], update: Update) -> dict[str, Array]:
    """The directions of an update on every side. Raises InputError if it is zero or no product of A and B."""
    if not isinstance(update, LowRank):
        raise InputError(
            f"run {about['run_id']} is {about['label']}, whose update has no A and B: this study is of LoRA"
        )
    try:
        return comparison.sides(*update.factors())
    except ValueError as error:
        raise InputError(f"run {about['run_id']}: {update.module}, {update.weight_type}: {error}") from error


@functools.cache
def _chance(r_w: int, r: int, dim: int) -> Baseline:
    return random_baseline(r_w, r, dim)


def entries(grid: Grid) -> list[dict[str, Any]]:
    """phi of a grid at i = 1, r and the top tenth of W's directions, for j = 1 and r, beside chance."""
    many, r = grid.values.shape
    about = {name: grid.about[name] for name in ("model", "task", "run_id", "seed")}
    about |= {"r": r, "layer": grid.site.layer, "weight_type": grid.site.weight_type, "side": grid.side}
    top = max(1, grid.chance.dim // TOP)
    rows = []
    for i in dict.fromkeys((1, min(r, many), min(top, many))):
        for j in dict.fromkeys((1, r)):
            at = i - 1, j - 1
            found = {"i": i, "j": j, "top": i == min(top, many), "phi": grid.values[at]}
            bounds = zip(("mean", "low", "high"), grid.chance[1:4], strict=True)
            rows.append(about | found | {f"chance_{name}": values[at] for name, values in bounds})
    return rows


def averaged(grids: list[Grid]) -> list[Curve]:
    """The grids of each place, rank, site and side, averaged over seeds."""
    found: dict[tuple[Any, ...], list[Grid]] = {}
    for grid in grids:
        key = comparison.Place(grid.about["model"], grid.about["task"]), grid.values.shape[1], grid.site, grid.side
        found.setdefault(key, []).append(grid)
    return [
        Curve(place, r, site, side, np.mean([grid.values for grid in same], axis=0), same[0].chance)
        for (place, r, site, side), same in found.items()
    ]


def report(rows: pd.DataFrame, table: pd.DataFrame, quality: pd.DataFrame, precision: str, failed: list[str]) -> str:
    """table.md: verdicts, the numbers by place, and the runs."""
    lines = ["# Directions of W and of delta_w (the paper's Figure 8)", "", READING.format(precision=precision)]
    lines += ["", "## What the runs say", "", *verdict(rows)]
    for (model, task), cells in table.groupby(["model", "task"], sort=False):
        lines += ["", f"## {task} ({model}): j = r", "", tables.markdown(shown(cells))]
    lines += ["", "## Runs", "", tables.markdown(quality)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"
