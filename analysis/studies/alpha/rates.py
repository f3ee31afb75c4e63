"""Runs at a fixed and at a tuned learning rate told apart, and what they say of alpha: spreads, noise and slopes."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import linregress, studentized_range

from analysis.kit import tables
from lora.config import InputError

GROUP = ["model", "task", "metric", "weight_types"]
CELL = [*GROUP, "r", "alpha"]
KINDS = {"fixed": "one rate for all", "tuned": "rate tuned for each"}


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The best validation rate of every cell that was tuned: CELL, alpha_over_r, best_lr, tried (rates), at_edge, and
    half_step, half of the mean log2 distance to its neighbours in the grid.

    Of equals it is the one that the cell's study runs have, and then the one that fewer cells have: the fixed rate is
    everybody's.
    """
    tuning, study = (tables.in_role(runs, role) for role in ("tuning", "study"))
    tuning = tuning[tuning["main"] & (tuning["split"] == "validation")]
    taken = study[[*CELL, "lr"]].drop_duplicates()
    rows = []
    for key, cell in tuning.groupby([*CELL, "alpha_over_r"], sort=False):
        scores = cell.groupby("lr")["value"].mean()
        same = (taken[CELL] == list(key[:-1])).all(axis=1)
        mine = set(taken["lr"][same])
        group = taken[(taken[GROUP] == list(key[: len(GROUP)])).all(axis=1)]
        equals = scores.index[scores == scores.max()]
        best = min(equals, key=lambda lr: (lr not in mine, int((group["lr"] == lr).sum())))
        place, steps = list(scores.index).index(best), np.diff(np.log2(scores.index))
        rows.append(
            dict(zip([*CELL, "alpha_over_r"], key, strict=True))
            | {"best_lr": best, "tried": len(scores), "at_edge": place in (0, len(scores) - 1)}
            | {"half_step": float(np.mean(steps[max(0, place - 1) : place + 1]) / 2) if len(steps) else np.nan}
        )
    table = pd.DataFrame(rows, columns=[*CELL, "alpha_over_r", "best_lr", "tried", "at_edge", "half_step"])
    return table.astype({"r": int, "alpha": float, "alpha_over_r": float, "best_lr": float, "half_step": float})


def sort_out(runs: pd.DataFrame, best: pd.DataFrame, study_dir: Path) -> pd.DataFrame:
    """The main test scores of the study's runs with `kind`: fixed, at the rate that most cells of a group have, or
    tuned, at the best rate of the cell. Where the two are one, a run is in both.

    Raises InputError if there is no run, if one fits neither, or if a seed of a cell has two of a kind.
    """
    test = tables.in_role(runs, "study")
    test = test[test["main"] & (test["split"] == "test")]
    if test.empty:
        raise InputError(
            f"{study_dir} has no finished run of the study; `{tables.make_command(study_dir)}` trains them"
        )
    test = test.merge(best[[*CELL, "best_lr"]], on=CELL, how="left")
    parts = []
    for _, group in test.groupby(GROUP, sort=False):
        cells = group.drop_duplicates([*CELL, "lr"])
        # Of two rates that all cells have, one is the best of all of them: the other is the fixed one.
        fixed = max(
            sorted(cells["lr"].unique()),
            key=lambda lr: ((cells["lr"] == lr).sum(), ((cells["lr"] == lr) & (cells["best_lr"] != lr)).sum()),
        )
        parts += [group[group["lr"] == fixed].assign(kind="fixed")]
        parts += [group[group["lr"] == group["best_lr"]].assign(kind="tuned")]
        odd = group[(group["lr"] != fixed) & (group["lr"] != group["best_lr"])]
        if not odd.empty:
            run = odd.iloc[0]
            raise InputError(
                f"{study_dir / 'sweep.jsonl'}: run {run['run_id']} (r {run['r']}, alpha {run['alpha']:g}) has lr "
                f"{run['lr']:g}, which is neither the common one ({fixed:g}) nor the best of its tuning; delete the "
                f"file, `{tables.make_command(study_dir)}` lists one set of runs"
            )
    sorted_out = pd.concat(parts, ignore_index=True)
    tables.check_seeds(sorted_out, [*CELL, "kind"], study_dir)
    return sorted_out


def claims(test: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """For each group and r: fixed_lr, compared (how many alpha / r both kinds have), over these spread_<kind>, the
    largest mean minus the smallest, and noise_<kind>, of `spread_by_chance`; slope, slope_scatter and slope_grid."""
    rows = []
    for key, group in test.groupby([*GROUP, "r"], sort=False):
        kinds = {kind: group[group["kind"] == kind].pivot_table("value", "alpha", "seed") for kind in KINDS}
        if not kinds["tuned"].empty:
            common = kinds["fixed"].index.intersection(kinds["tuned"].index)
            kinds = {kind: cells.loc[common] for kind, cells in kinds.items()}
        row = dict(zip([*GROUP, "r"], key, strict=True))
        row |= {"fixed_lr": group["lr"][group["kind"] == "fixed"].iloc[0], "compared": len(kinds["fixed"])}
        for kind, cells in kinds.items():
            row |= {f"spread_{kind}": float(np.ptp(cells.mean(axis=1))) if len(cells) else np.nan}
            row |= {f"noise_{kind}": spread_by_chance(cells)}
        tuned = best[(best[[*GROUP, "r"]] == list(key)).all(axis=1)]
        row |= dict(zip(("slope", "slope_scatter", "slope_grid"), slope(tuned), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def spread_by_chance(cells: pd.DataFrame) -> float:
    """What the spread of the rows' means stays below in 95% of cases if rows differ by noise alone.

    cells: a row an alpha, a column a seed; seeds that an alpha lacks are left out. The studentized range of the k means
    of n seeds, with the variance of the k x n values about row and column means. NaN for fewer than two of either.
    """
    values = cells.dropna(axis=1).to_numpy()
    k, n = values.shape
    if k < 2 or n < 2:
        return np.nan
    left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    freedom = (k - 1) * (n - 1)
    return float(studentized_range.ppf(0.95, k, freedom) * np.sqrt((left**2).sum() / freedom / n))


def slope(best: pd.DataFrame) -> tuple[float, float, float]:
    """Slope of log best_lr over log alpha_over_r, the half-width of its 95% interval (NaN for two points), and how much
    it moves at most if every best_lr is off by its half_step."""
    if best["alpha_over_r"].nunique() < 2:
        return np.nan, np.nan, np.nan
    x, y = np.log2(best["alpha_over_r"]), np.log2(best["best_lr"])
    line = linregress(x, y)
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    scatter = float(stdtrit(len(x) - 2, 0.975) * line.stderr) if len(x) > 2 else np.nan
    return float(line.slope), scatter, float((weights.abs() * best["half_step"]).sum(skipna=False))
