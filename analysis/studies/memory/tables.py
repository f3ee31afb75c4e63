"""Tables of the study of memory: methods by kind of bytes, others' estimates, the paper's figures, what fits."""

import pandas as pd

from experiments.measure.memory.units import KINDS, human


def methods(own: pd.DataFrame) -> pd.DataFrame:
    """A row a method, of rows of plans.csv: bytes by kind, the peak, trained parameters and checkpoint."""
    return pd.DataFrame(
        {
            "method": own["title"],
            "precision": own["precision"],
            **{name: own[kind].map(human) for kind, name in KINDS.items()},
            "peak": own["peak"].map(human),
            "trained": [
                f"{trained:,} ({100 * trained / total:.2g}%)"
                for trained, total in zip(own["trainable_params"], own["total_params"], strict=True)
            ],
            "checkpoint": own["checkpoint_bytes"].map(human),
        }
    )


def published(table: pd.DataFrame) -> pd.DataFrame:
    """LLaMA-Factory's layout: a row a method, a column a size, `theirs / ours (ratio)` in GB."""
    cells = table.assign(
        cell=[
            f"{theirs / 1e9:g} / {peak / 1e9:.3g} ({ratio:.2f})"
            for theirs, peak, ratio in zip(table["theirs"], table["peak"], table["ratio"], strict=True)
        ],
        estimate=table["method"] + ", " + table["bits"].astype(str),
    )
    order = cells[["estimate", "ours"]].drop_duplicates()
    grid = cells.pivot(index=["estimate", "ours"], columns="size", values="cell")
    grid = grid.loc[list(order.itertuples(index=False, name=None)), list(table["size"].unique())]
    return grid.reset_index().rename(columns={"estimate": "LLaMA-Factory", "ours": "planned"})


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Why each cell differs, a row a size and method."""
    return pd.DataFrame(
        {
            "size": table["size"],
            "planned": table["ours"],
            "theirs (GB)": (table["theirs"] / 1e9).map("{:g}".format),
            "ours (GB)": (table["peak"] / 1e9).map("{:.3g}".format),
            "ours - theirs": table["why"],
        }
    ).sort_values("size", key=lambda sizes: sizes.map(list(table["size"].unique()).index), kind="stable")


def paper_figures(table: pd.DataFrame) -> pd.DataFrame:
    """The figures of the LoRA paper and of guides, theirs and ours."""
    values = {
        title: [f"{value:,.4g} {unit}" for value, unit in zip(table[name], table["unit"], strict=True)]
        for name, title in (("theirs", "theirs"), ("ours", "ours"))
    }
    ratio = table["ratio"].map("{:.2f}".format)
    return pd.DataFrame(
        {
            "figure": table["quantity"],
            "source": table["source"],
            **values,
            "ratio": ratio,
            "how ours is made": table["how"],
        }
    )


def fits(own: pd.DataFrame) -> pd.DataFrame:
    """A row a method and checkpointing, a column a card: largest batches at each length; then the longest row. own: the
    rows of one model of fits.csv."""
    asked = own[own["asked"] == "batch"].sort_values("length", kind="stable")
    asked = asked.assign(batch=asked["batch"].map(lambda batch: str(batch) if batch else "–"))
    batches = asked.groupby(["method", "checkpointing", "card"], sort=False)["batch"].agg(" / ".join)
    longest = own[own["asked"] == "length"].set_index(["method", "checkpointing", "card"])["length"]
    shown = batches + ", " + longest.map(lambda length: f"{length:,}" if length else "–")
    grid = shown.unstack("card")
    order = own[["method", "checkpointing"]].drop_duplicates().sort_values("checkpointing", kind="stable")
    grid = grid.loc[list(order.itertuples(index=False, name=None))].reset_index()
    grid["checkpointing"] = grid["checkpointing"].map({False: "no", True: "yes"})
    return grid.rename(columns={card: f"{card:g} GiB" for card in grid.columns if not isinstance(card, str)})
