"""Are the directions of delta_w among the top directions of W: the paper's Figure 8."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import cells, pages, phi, updates
from analysis.kit.data import Data
from analysis.kit.measured import Rows, ids
from analysis.kit.study import Study
from analysis.kit.updates import PLACE
from analysis.studies.w_vs_delta import draw, measures
from analysis.studies.w_vs_delta.measures import ENDS

SHAPE = ["dim", "r", "many"]
KEYS = [*PLACE, "side", "weight_type", "r", "i", "j"]
PAPER = "the paper: barely above 0.2, for r = 4 of W_q"
DIGITS = 4  # of what figures alone need
READING = """\
phi(W, delta_w, i, j) is the share of delta_w's top-j directions that lies in the top-i of W (or the reverse, if i < j),
from 0 to 1; between random directions it is max(i, j) / dimension. delta_w's directions are its right singular vectors
(inputs) or its left ones (outputs); fig8 is made from A, as in the paper, fig8_B from B. At j = r these span the same
space as delta_w's. i = top 10% is the range of the paper's figure. Above and below chance: outside the interval that
holds 95% of draws of random directions, as 1 in 40 is by chance on either side. Means are over layers and seeds, `(a to
b)` is from the smallest layer to the largest. fig8 is the mean over seeds, its random directions are one draw.
{precision}"""


def stored(data: Data) -> dict[str, Rows]:
    """The measured files, complete but for what figures alone need of runs whose adapters are gone: phi (some i and j),
    curves and, by the end of their names, the maps of each place. Rows of chance are computed where they lack."""
    groups = updates.each(data).groupby(PLACE, sort=False)["run_id"]
    runs = {(str(model), str(task)): own for (model, task), own in groups}
    found = {name: updates.rows(data, f"{name}.csv") for name in ("phi", "curves")}
    for place, of in runs.items():
        name = f"maps{phi.suffix(place, runs)}"
        found[name] = updates.rows(data, f"{name}.csv", wanted=ids(of))
    drawn = {run_id for name, rows in found.items() if name != "phi" for (run_id,) in rows.missing}
    chosen = {run_id for (run_id,) in found["phi"].missing}
    chosen |= {run_id for run_id in drawn if (data.runs_dir / run_id / "adapter").is_dir()}
    if chosen:
        new = measures.measure(updates.trained(data, chosen))
        for name, rows in found.items():
            rows.add({"phi": new.entries, "curves": new.curves}.get(name, new.maps), 6 if name == "phi" else DIGITS)
    chance = found["chance"] = Rows(data.folder / "chance.csv", SHAPE)
    for shape in found["phi"].frame[SHAPE].drop_duplicates().itertuples(index=False):
        if not (chance.frame[SHAPE] == list(shape)).all(axis=1).any():
            chance.add(measures.chance(*map(int, shape)))
    return found


def entries(data: Data) -> pd.DataFrame:
    """phi at some i and j of every run and site, beside chance."""
    found = data.once(stored)
    return found["phi"].frame.merge(found["chance"].frame, how="left")


def by_rank(data: Data) -> pd.DataFrame:
    """For each of KEYS: mean phi, its range over the layers' means, the mean by chance, and in how many of the n
    updates (layers times seeds) it is above or below chance."""

    def count(own: pd.DataFrame) -> dict[str, Any]:
        layers = own.groupby("layer", sort=False)["phi"].mean()
        return {
            "top": bool(own["top"].all()), "phi": own["phi"].mean(), "lowest": layers.min(), "highest": layers.max(),
            "chance": own["chance_mean"].mean(), "n": len(own),
            "above": int((own["phi"] > own["chance_high"]).sum()), "below": int((own["phi"] < own["chance_low"]).sum()),
        }  # fmt: skip

    found = cells.each(data.once(entries), KEYS, count)
    order = {name: pd.factorize(found[name])[0] for name in KEYS[:4]}
    places = found[["r", "i", "j"]].assign(**order).sort_values(KEYS).index
    return found.loc[places].reset_index(drop=True)


def shown(data: Data) -> pd.DataFrame:
    """The rows of `by_rank` at j = r, for reading: a row a side, weight type and rank, columns by i."""

    def texts(own: pd.DataFrame) -> dict[str, str]:
        row: dict[str, str] = {}
        for cell in own.to_dict("records"):
            for head in _heads(cell):
                row[head] = f"{cell['phi']:.3f} ({cell['lowest']:.3f} to {cell['highest']:.3f})"
                row[f"{head}: chance"] = f"{cell['chance']:.3f}"
                row[f"{head}: above, below"] = f"{cell['above']}, {cell['below']} of {cell['n']}"
        return row

    table = data["table.csv"]
    found = cells.each(table[table["j"] == table["r"]], ["side", "weight_type", "r"], texts)
    found = found.replace({"side": ENDS}).astype({"r": str})
    return found.rename(columns={"side": "directions", "weight_type": "weights"})


def _heads(cell: Mapping[Any, Any]) -> list[str]:
    return ["i = 1"] * (cell["i"] == 1) + ["i = r"] * (cell["i"] == cell["r"]) + ["i = top 10%"] * cell["top"]


def verdict(data: Data) -> list[str]:
    """What the numbers say, as markdown list items."""
    rows = data.once(entries)
    own = rows[rows["j"] == rows["r"]]
    lines = []
    for side, end in ENDS.items():
        mine = own[own["side"] == side]
        for name, of in (("top 10% of W's", mine[mine["top"]]), ("top r of W's", mine[mine["i"] == mine["r"]])):
            above, below = of["phi"] > of["chance_high"], of["phi"] < of["chance_low"]
            lines.append(
                f"- The {name} {end} directions share more with delta_w than with random directions in {above.sum()} "
                f"of {len(of)} updates, less in {below.sum()} ({0.025 * len(of):.2g} each by chance). Median: "
                f"{(of['phi'] / of['chance_mean']).median():.2f} times chance."
            )
    smallest = own[own["top"] & (own["r"] == own["r"].min()) & (own["side"] == "delta_w_right")]
    for (model, weight_type, task), of in smallest.groupby(["model", "weight_type", "task"]):
        lines.append(
            f"- {weight_type}, {task} ({model}): of the {of['r'].iloc[0]} input directions of delta_w a share of "
            f"{of['phi'].median():.2f} lies in the top 10% of W's (median of {of['layer'].nunique()} layers and "
            f"{of['seed'].nunique()} seeds, at most {of['phi'].max():.2f}; by chance "
            f"{of['chance_mean'].mean():.2f}; {PAPER})."
        )
    return lines


def files(data: Data) -> list[Path]:
    """The measured files that are there."""
    return [rows.path for rows in data.once(stored).values() if rows.path.is_file()]


STUDY = Study(
    runs=updates.load,
    cell=["model", "task", "r"],
    base=True,
    reads=("phi.csv", "curves.csv", "chance.csv", "maps*.csv"),
    tables={"table.csv": by_rank},
    numbers="%.4f",
    page=[
        "# Directions of W and of delta_w (the paper's Figure 8)",
        pages.text(READING, precision=updates.precision),
        pages.under("## What the runs say", verdict),
        pages.sections("## {task} ({model}): j = r", pages.table(shown), by=PLACE),
        updates.runs_table,
        pages.failed_runs,
    ],
    figures={
        "fig8.png": lambda data, path: draw.maps(data, data.once(stored)),
        "curves.png": lambda data, path: draw.curves(data, data.once(stored), path),
    },
    more=[files],
)
