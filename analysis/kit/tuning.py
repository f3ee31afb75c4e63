"""How every method's learning rate was chosen: the rates that were tried, and how wide the region of good ones is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.kit import naming, tables
from analysis.maths.svd import Array
from lora.config import InputError

if TYPE_CHECKING:  # which has the rates of this module
    from analysis.kit.data import Data

CELL = ["model", "task", "metric", "label", "settings"]
TOLERANCES = {1: 0.01, 2: 0.02}  # points -> how much worse than the best still counts as good
ISOLATED = 0.02
ROUNDING = 1e-9
LOWER_IS_BETTER = ("loss",)


class Region(NamedTuple):
    """Learning rates from low to high, around the best, that are good; bounded: rates that are not good were seen on
    both sides, so that it is no wider."""

    low: float
    high: float
    bounded: bool

    @property
    def decades(self) -> float:
        """Width: log10 of high / low."""
        return float(np.log10(self.high / self.low))


def check(test: pd.DataFrame, study_dir: Path) -> None:
    """Raises InputError if no run is finished, or if the mean of one of CELL would be over different learning rates."""
    command = tables.make_command(study_dir)
    if test.empty:
        raise InputError(f"{study_dir} has no finished run to compare; `{command}` trains them")
    tables.check_seeds(test, CELL, study_dir)
    check_rates(test, CELL, study_dir)


def check_rates(test: pd.DataFrame, by: Sequence[str], study_dir: Path) -> None:
    """Raises InputError if a group of `by` has runs of different learning rates, of which its mean would be."""
    for _, cell in test.groupby(list(by), sort=False, dropna=False):
        if cell["lr"].nunique() > 1:
            run, found = cell.iloc[0], ", ".join(f"{lr:g}" for lr in sorted(cell["lr"].unique()))
            raise InputError(
                f"{study_dir / 'sweep.jsonl'} lists runs of {naming.title(run['label'], run['settings'])} on "
                f"{run['task']} with different learning rates ({found}); delete it, "
                f"`{tables.make_command(study_dir)}` lists one set of runs"
            )


def good_region(lr: Sequence[float], value: Sequence[float], best: int, tolerance: float) -> Region:
    """The learning rates around lr[best] whose score is at most `tolerance` below value[best].

    lr rises; scores between two rates are interpolated linearly over log10 lr. A rate that did not train (NaN) ends
    the region at its neighbour. The region ends at the last rate tried, and is then not bounded.
    """
    x, y = np.log10(np.asarray(lr, dtype=float)), np.asarray(value, dtype=float)
    level = y[best] - tolerance - ROUNDING
    low, low_seen = _reach(x[best::-1], y[best::-1], level)
    high, high_seen = _reach(x[best:], y[best:], level)
    return Region(10**low, 10**high, low_seen and high_seen)


def _reach(x: Array, y: Array, level: float) -> tuple[float, bool]:
    """How far from x[0] the scores y stay above the level, and whether they were seen to fall below it."""
    below = np.flatnonzero(~(y >= level))
    if not len(below):
        return float(x[-1]), False
    i = below[0]
    if np.isnan(y[i]):
        return float(x[i - 1]), True
    return float(x[i - 1] + (x[i] - x[i - 1]) * (y[i - 1] - level) / (y[i - 1] - y[i])), True


def rates(runs: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """The rates tried, a row for each of CELL and lr: value, the validation score (NaN: training failed), n, chosen.

    The score is of the main metric, or, where text is generated, the loss: nats a target token, lower is better.
    chosen: the study's runs of that method were trained with this rate. failed is of `kit.tables.load_failed`.
    """
    runs = _watched(runs[runs["split"] == "validation"])
    tuning = tables.in_role(runs, "tuning")
    if tuning.empty:
        return pd.DataFrame(columns=[*CELL, "lr", "value", "n", "chosen"])
    grid = tables.summarise(tuning, [*CELL, "lr"]).rename(columns={"mean": "value"}).drop(columns="interval")
    lost = failed.merge(grid[CELL].drop_duplicates(), on=[name for name in CELL if name != "metric"])
    lost = lost[[*CELL, "lr"]].drop_duplicates().merge(grid[[*CELL, "lr"]], how="left", indicator=True)
    grid = pd.concat([grid, lost[lost["_merge"] == "left_only"].drop(columns="_merge").assign(n=0)], ignore_index=True)
    used = tables.in_role(runs, "study")[[*CELL, "lr"]].drop_duplicates().assign(chosen=True)
    grid = grid.merge(used, on=[*CELL, "lr"], how="left")
    grid["chosen"] = grid["chosen"].notna()
    places = {name: place for place, name in enumerate(sorted(grid["label"].unique(), key=naming.order))}
    keys = {"model": grid["model"], "task": grid["task"], "label": grid["label"].map(places)}
    order = pd.DataFrame(keys | {"settings": grid["settings"], "lr": grid["lr"]})
    return grid.loc[order.sort_values(list(order.columns)).index].reset_index(drop=True)


def tried(data: Data) -> pd.DataFrame | None:
    """The table of a study's `rates`; None where none was tuned."""
    return None if data.rates.empty else data.rates


def _watched(validation: pd.DataFrame) -> pd.DataFrame:
    """The rows that a rate is chosen by: the main metric's, or the loss of runs that say so or have no main metric
    here."""
    scored = validation.groupby("run_id")["watched"].transform("any").astype(bool)
    return validation[validation["watched"] | (~scored & (validation["metric"] == "loss"))]


def outcomes(grid: pd.DataFrame) -> pd.DataFrame:
    """What the tuning of each of CELL came to, from the frame of `rates`.

    tried: rates; beyond_grid: how many more than the most common number in the study (all grids start with as many, and
    grow where the best lies at an edge); failed: rates that did not train; best_lr, and at_edge: on one side of it no
    rate was tried; isolated: no other rate tried comes within 2 points of it; for each of TOLERANCES decades_<points>,
    the width of the good region, and bounded_<points>. A point is 0.01, of loss too.
    """
    rows = []
    for key, cell in grid.groupby(CELL, sort=False):
        cell = cell.sort_values("lr", ignore_index=True)
        if cell["metric"].iloc[0] in LOWER_IS_BETTER:
            cell["value"] = -cell["value"]
        best = _best(cell)
        row: dict[str, Any] = dict(zip(CELL, key, strict=True)) | {
            "tried": len(cell),
            "failed": int(cell["value"].isna().sum()),
            "lowest_lr": cell["lr"].iloc[0],
            "highest_lr": cell["lr"].iloc[-1],
            "best_lr": cell["lr"][best],
            "at_edge": best in (0, len(cell) - 1),
            "isolated": not (cell["value"].drop(best) >= cell["value"][best] - ISOLATED).any(),
        }
        for points, tolerance in TOLERANCES.items():
            region = good_region(cell["lr"].tolist(), cell["value"].tolist(), best, tolerance)
            row |= {f"decades_{points}": region.decades, f"bounded_{points}": region.bounded}
        rows.append(row)
    table = pd.DataFrame(rows)
    ended = grid.groupby(CELL, sort=False)["chosen"].any().to_numpy()  # a tuning that was stopped has no choice yet
    usual = table["tried"][ended if ended.any() else ~ended].mode()[0]
    table.insert(len(CELL) + 1, "beyond_grid", (table["tried"] - usual).clip(lower=0))
    return table


def _best(cell: pd.DataFrame) -> int:
    """Position of the best rate; of equals it is the one that was chosen, else the one nearest to the middle."""
    equals = cell[cell["value"] >= cell["value"].max() - ROUNDING]
    chosen = equals[equals["chosen"]]
    positions = (equals if chosen.empty else chosen).index
    return int(min(positions, key=lambda position: abs(position - (len(cell) - 1) / 2)))
