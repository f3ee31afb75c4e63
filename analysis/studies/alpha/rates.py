"""Runs at a fixed and at a tuned learning rate told apart, and what they say of alpha: spreads, noise and slopes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import linregress, studentized_range

from analysis.kit import cells, tables
from lora.config import InputError

GROUP = ["model", "task", "metric", "weight_types"]
CELL = [*GROUP, "r", "alpha"]
BEST = ["alpha_over_r", "best_lr", "tried", "at_edge", "half_step"]
KINDS = {"fixed": "one rate for all", "tuned": "rate tuned for each"}


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The best validation rate of every cell that was tuned: CELL, alpha_over_r, best_lr, tried (rates), at_edge, and
    half_step, half of the mean log2 distance to its neighbours in the grid.

    Of equals it is the one that the cell's study runs have, and then the one that fewer cells have: the fixed rate is
    everybody's.
    """
    tuning, study = (tables.in_role(runs, role) for role in ("tuning", "study"))
    taken = study[[*CELL, "lr"]].drop_duplicates()

    def best(own: pd.DataFrame) -> dict[str, Any]:
        scores = own.groupby("lr")["value"].mean()
        key = own[CELL].iloc[0]
        mine = set(taken.loc[(taken[CELL] == key).all(axis=1), "lr"])
        group = taken.loc[(taken[GROUP] == key[GROUP]).all(axis=1), "lr"]
        equals = scores.index[scores == scores.max()]
        best = min(equals, key=lambda lr: (lr not in mine, int((group == lr).sum())))
        place, steps = list(scores.index).index(best), np.diff(np.log2(scores.index))
        half = float(np.mean(steps[max(0, place - 1) : place + 1]) / 2) if len(steps) else np.nan
        edge = place in (0, len(scores) - 1)
        return {"best_lr": best, "tried": len(scores), "at_edge": edge, "half_step": half}

    found = cells.each(tuning[tuning["main"] & (tuning["split"] == "validation")], [*CELL, "alpha_over_r"], best)
    kinds = {"r": int, "alpha": float, "alpha_over_r": float, "best_lr": float, "half_step": float}
    return found.astype(kinds) if len(found) else pd.DataFrame(columns=[*CELL, *BEST])


def with_rates(runs: pd.DataFrame, study_dir: Path) -> pd.DataFrame:
    """runs with best_lr of their cell, and fixed_lr, the rate that most cells of a group have. Raises InputError if a
    run of the study has neither."""
    runs = runs.merge(best_rates(runs)[[*CELL, "best_lr"]], on=CELL, how="left")
    own = tables.in_role(runs[runs["main"]], "study").drop_duplicates([*CELL, "lr"])

    def fixed(cells: pd.DataFrame) -> dict[str, float]:
        # Of two rates that all cells have, one is the best of all of them: the other is the fixed one.
        others = cells.loc[cells["best_lr"] != cells["lr"], "lr"]
        rates = sorted(cells["lr"].unique())
        return {"fixed_lr": max(rates, key=lambda lr: ((cells["lr"] == lr).sum(), (others == lr).sum()))}

    runs = runs.merge(cells.each(own, GROUP, fixed), on=GROUP, how="left") if len(own) else runs.assign(fixed_lr=np.nan)
    odd = tables.in_role(runs[runs["main"]], "study").query("lr != fixed_lr and lr != best_lr")
    if not odd.empty:
        run = odd.iloc[0]
        raise InputError(
            f"{study_dir / 'sweep.jsonl'}: run {run['run_id']} (r {run['r']}, alpha {run['alpha']:g}) has lr "
            f"{run['lr']:g}, which is neither the common one ({run['fixed_lr']:g}) nor the best of its tuning; delete "
            f"the file, `{tables.make_command(study_dir)}` lists one set of runs"
        )
    return runs


def sort_out(final: pd.DataFrame) -> pd.DataFrame:
    """The main test scores of the study's runs with `kind`: fixed, at the common rate, or tuned, at the cell's best.
    Where the two are one, a run is in both."""
    test = final[final["main"] & (final["split"] == "test")]
    rates = {"fixed": "fixed_lr", "tuned": "best_lr"}
    parts = [
        group[group["lr"] == group[rate]].assign(kind=kind)
        for _, group in test.groupby(GROUP, sort=False)
        for kind, rate in rates.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else test.assign(kind="")


def claims(test: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """For each group and r: fixed_lr, compared (how many alpha / r both kinds have), over these spread_<kind>, the
    largest mean minus the smallest, and noise_<kind>, of `spread_by_chance`; slope, slope_scatter and slope_grid."""

    def claim(own: pd.DataFrame) -> dict[str, Any]:
        kinds = {kind: own[own["kind"] == kind].pivot_table("value", "alpha", "seed") for kind in KINDS}
        if not kinds["tuned"].empty:
            common = kinds["fixed"].index.intersection(kinds["tuned"].index)
            kinds = {kind: means.loc[common] for kind, means in kinds.items()}
        row = {"fixed_lr": own["fixed_lr"].iloc[0], "compared": len(kinds["fixed"])}
        for kind, means in kinds.items():
            row[f"spread_{kind}"] = float(np.ptp(means.mean(axis=1))) if len(means) else np.nan
            row[f"noise_{kind}"] = spread_by_chance(means)
        key = [*GROUP, "r"]
        tuned = best[(best[key] == own[key].iloc[0]).all(axis=1)]
        return row | dict(zip(("slope", "slope_scatter", "slope_grid"), slope(tuned), strict=True))

    return cells.each(test, [*GROUP, "r"], claim)


def spread_by_chance(means: pd.DataFrame) -> float:
    """What the spread of the rows' means stays below in 95% of cases if rows differ by noise alone.

    means: a row an alpha, a column a seed; seeds that an alpha lacks are left out. The studentized range of the k means
    of n seeds, with the variance of the k x n values about row and column means. NaN for fewer than two of either.
    """
    values = means.dropna(axis=1).to_numpy()
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
