"""What phi between W and delta_w comes to: how often it is above chance, and its means by rank."""

from typing import Any

import pandas as pd

KEYS = ["model", "task", "side", "weight_type", "r", "i", "j"]
PAPER = "the paper: barely above 0.2, for r = 4 of W_q"
ENDS = {"delta_w_right": "input", "delta_w_left": "output"}


def by_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """For each of KEYS: mean phi, its range over the layers' means, the mean by chance, and in how many of the n
    updates (layers times seeds) it is above or below chance."""
    table = []
    for key, cells in rows.groupby(KEYS, sort=False):
        layers = cells.groupby("layer", sort=False)["phi"].mean()
        table.append(
            dict(zip(KEYS, key, strict=True))
            | {"top": bool(cells["top"].all()), "phi": cells["phi"].mean(), "lowest": layers.min()}
            | {"highest": layers.max(), "chance": cells["chance_mean"].mean(), "n": len(cells)}
            | {"above": int((cells["phi"] > cells["chance_high"]).sum())}
            | {"below": int((cells["phi"] < cells["chance_low"]).sum())}
        )
    found = pd.DataFrame(table)
    order = [found[name].map({value: n for n, value in enumerate(dict.fromkeys(found[name]))}) for name in KEYS[:4]]
    places = pd.concat([*order, found[["r", "i", "j"]]], axis=1).sort_values([*KEYS[:4], "r", "i", "j"]).index
    return found.loc[places].reset_index(drop=True)


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_rank` of one place at j = r, for reading: a row a side, weight type and rank, columns by i."""
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for cell in table[table["j"] == table["r"]].to_dict("records"):
        key = cell["side"], cell["weight_type"], cell["r"]
        row = rows.setdefault(
            key, {"directions": ENDS[cell["side"]], "weights": str(cell["weight_type"]), "r": str(cell["r"])}
        )
        heads = ["i = 1"] * (cell["i"] == 1) + ["i = r"] * (cell["i"] == cell["r"]) + ["i = top 10%"] * cell["top"]
        for head in heads:
            row[head] = f"{cell['phi']:.3f} ({cell['lowest']:.3f} to {cell['highest']:.3f})"
            row[f"{head}: chance"] = f"{cell['chance']:.3f}"
            row[f"{head}: above, below"] = f"{cell['above']}, {cell['below']} of {cell['n']}"
    return pd.DataFrame(list(rows.values()))


def verdict(rows: pd.DataFrame) -> list[str]:
    """What the numbers say, as markdown list items."""
    own = rows[rows["j"] == rows["r"]]
    lines = []
    for side, end in ENDS.items():
        mine = own[own["side"] == side]
        for name, cells in (("top 10% of W's", mine[mine["top"]]), ("top r of W's", mine[mine["i"] == mine["r"]])):
            above, below = cells["phi"] > cells["chance_high"], cells["phi"] < cells["chance_low"]
            lines.append(
                f"- The {name} {end} directions share more with delta_w than with random directions in {above.sum()} "
                f"of {len(cells)} updates, less in {below.sum()} ({0.025 * len(cells):.2g} each by chance). Median: "
                f"{(cells['phi'] / cells['chance_mean']).median():.2f} times chance."
            )
    smallest = own[own["top"] & (own["r"] == own["r"].min()) & (own["side"] == "delta_w_right")]
    for (model, weight_type, task), cells in smallest.groupby(["model", "weight_type", "task"]):
        lines.append(
            f"- {weight_type}, {task} ({model}): of the {cells['r'].iloc[0]} input directions of delta_w a share of "
            f"{cells['phi'].median():.2f} lies in the top 10% of W's (median of {cells['layer'].nunique()} layers and "
            f"{cells['seed'].nunique()} seeds, at most {cells['phi'].max():.2f}; by chance "
            f"{cells['chance_mean'].mean():.2f}; {PAPER})."
        )
    return lines
