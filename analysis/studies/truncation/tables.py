"""How much of an update's effect its own truncation to rank k keeps, from what measure.truncation has measured."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from analysis.weights.update_runs import PLACE

COLUMNS = ["run_id", "k", "split", "metric", "value"]
KEPT = 0.95


def effects(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """PLACE, method, seed, run_id, metric, k, value on test data, energy (the share of the squared norm that is kept)
    and effect, the share of the way from k = 0 to the whole update; whole: nothing is cut at this k.

    The metric is the task's main one, or the loss where no text was written. rows has COLUMNS; runs is of
    `kit.tables.load_runs`, with `method` as it is to be called.
    """
    main = runs[runs["main"]].drop_duplicates("run_id").set_index("run_id")
    found = []
    for run_id, cells in rows.groupby("run_id", sort=False):
        run = main.loc[str(run_id)]
        test = cells[cells["split"] == "test"]
        metric = run["metric"] if (test["metric"] == run["metric"]).any() else "loss"
        values = test[test["metric"] == metric].set_index("k")["value"].sort_index()
        energy = cells[cells["metric"] == "energy"].set_index("k")["value"]
        none, whole = values.iloc[0], values.iloc[-1]
        found.append(
            pd.DataFrame({"k": values.index, "value": values.to_numpy(), "whole": values.index == values.index.max()})
            .assign(**{name: run[name] for name in (*PLACE, "method", "seed")}, run_id=run_id, metric=metric)
            .assign(energy=energy.reindex(values.index).to_numpy())
            .assign(effect=((values - none) / (whole - none)).to_numpy() if whole != none else float("nan"))
        )
    return pd.concat(found, ignore_index=True)


def needed(table: pd.DataFrame) -> pd.DataFrame:
    """For each of PLACE, method and seed the smallest measured k from which on at least KEPT of the effect is kept, the
    value without the update and with the whole of it. NaN where the whole update is not better than none."""
    rows: list[dict[str, Any]] = []
    for key, cells in table.groupby([*PLACE, "method", "seed", "metric"], sort=False):
        cells = cells.sort_values("k")
        none, whole = cells["value"].iloc[0], cells["value"].iloc[-1]
        better = whole < none if key[-1] == "loss" else whole > none
        short = cells.loc[cells["effect"] < KEPT, "k"]
        enough = cells[cells["k"] > short.max()]
        rows.append(
            dict(zip([*PLACE, "method", "seed", "metric"], key, strict=True))
            | {"none": none, "whole": whole, "k": enough["k"].iloc[0] if better else float("nan")}
            | {"largest": cells["k"].iloc[-1]}
        )
    return pd.DataFrame(rows)


def needed_table(found: pd.DataFrame) -> pd.DataFrame:
    """For reading: a row a place and method, seeds side by side."""
    rows = []
    for key, cells in found.groupby([*PLACE, "method", "metric"], sort=False):
        ks = [f"{k:.0f}" if pd.notna(k) else "no effect" for k in cells.sort_values("seed")["k"]]
        rows.append(
            dict(zip(["model", "task", "method", "metric"], map(str, key), strict=True))
            | {"without the update": _value(cells["none"].mean(), key[-1])}
            | {"whole": _value(cells["whole"].mean(), key[-1])}
            | {f"k for {100 * KEPT:.0f}% (each seed)": ", ".join(ks), "of": f"{cells['largest'].iloc[0]:.0f}"}
        )
    return pd.DataFrame(rows)


def _value(value: float, metric: Hashable) -> str:
    return f"{value:.3f}" if metric == "loss" else f"{100 * value:.1f}"
