"""The pictures of the study of memory methods: quality against memory, and ranks of the update by method."""

from pathlib import Path

import pandas as pd
import seaborn as sns

from analysis.kit import figures, marks, update_marks
from analysis.kit.data import Data
from analysis.kit.figures import weight_name
from analysis.kit.pages import TASK
from analysis.kit.updates import place_name
from analysis.studies.memory_methods.measures import MEASURES

MEMORY = "training_memory_bytes"
GB = 1e9
DRAWN = ("q", "v", "up", "down")  # attention and feed-forward, as far as a model has them
MARKERS = "osD^vP*X<>"


def ranks(data: Data) -> pd.DataFrame:
    """A panel a measure, and one for phi with LoRA's outputs; a colour a weight type."""
    rows = data["ranks.csv"]
    rows = rows[rows["weight_type"].isin(DRAWN)] if rows["weight_type"].isin(DRAWN).any() else rows
    rows = rows.assign(series=rows["weight_type"].map(weight_name))
    columns = {title: (name, f"random_{name}") for name, title in MEASURES.items()}
    columns |= {r"$\phi(k, k)$ with LoRA": ("phi_left", "chance_left")}
    return pd.concat(
        [
            rows.assign(panel=title, value=rows[name], low=rows[chance], high=rows[chance])
            for title, (name, chance) in columns.items()
        ]
    )


def memory(data: Data, path: Path) -> Path:
    """A panel a place: mean quality with its 95% interval against the memory of training, a point a method; single runs
    are small. Runs without it are left out."""
    rows = data["table.csv"].query("main")
    places = list(rows.groupby(TASK, sort=False))
    shown = list(dict.fromkeys(rows["name"]))
    colours = dict(zip(shown, sns.color_palette(n_colors=len(shown)), strict=True))
    figure, axes = figures.panels(1, len(places), 4.6 if len(places) == 1 else figures.PAGE_WIDTH, 3.3)
    for axis, ((model, task, metric), own) in zip(axes.flat, places, strict=True):
        for name, row in own.dropna(subset=MEMORY).groupby("name", sort=False):
            style = {"color": colours[name], "marker": MARKERS[shown.index(name) % len(MARKERS)]}
            axis.errorbar(
                row[MEMORY] / GB, 100 * row["mean"], yerr=100 * row["interval"], label=name, markersize=6,
                linestyle="none", elinewidth=1, capsize=2, **style,
            )  # fmt: skip
        runs = data.scores[(data.scores[TASK] == [model, task, metric]).all(axis=1)].dropna(subset=MEMORY)
        axis.scatter(runs[MEMORY] / GB, 100 * runs["value"], s=7, c=runs["name"].map(colours), alpha=0.5)
        axis.set(title=place_name((model, task)), xlabel="memory of training (GB)", ylabel=f"test {metric} (%)")
        axis.grid(linewidth=0.4)
        if len(runs):
            marks.limit(axis, runs["value"], 0.15)
    update_marks.legend(figure, axes, shown)
    return marks.finish(figure, rows["interval"], data.scores["value"], path)
