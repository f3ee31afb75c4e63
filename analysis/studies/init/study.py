"""Where A and B start, and what comes of it: training loss and final quality from every start."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import cells, collapses, figures, pages, tables
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.maths.statistics import against, difference_text
from analysis.studies.init import losses
from analysis.studies.init.losses import CELL, CURVES, ENTRIES, LOSSES, SMOOTHING
from lora.config import InputError

STARTS = {
    "gaussian": "A Gaussian, B = 0 (the paper)",
    "gaussian_b": "A = 0, B Gaussian",
    "both_gaussian": "A and B Gaussian",
    "both_zero": "A = B = 0",
    "kaiming": "A Kaiming uniform, B = 0",
    "orthogonal": "A orthonormal rows, B = 0",
    "pissa": "principal part of W0",
    "lora_ga": "along the gradient of W0",
}
READING = """\
Test and validation {metrics} in percent, mean ± half-width of the 95% Student-t interval (number of seeds). To
gaussian: the difference on test data in points, paired by seed, ± half-width of its 95% interval; p of the paired
t-test, corrected for the number of starts (Holm), * below 0.05. First loss: before the first step, the same for all
starts that leave the model as it was; final loss: mean over the last tenth of the steps; both are training losses,
means over seeds. For one seed the head starts from the same numbers everywhere. {head}"""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs with `init`, a key of STARTS, in the order of these. Raises InputError for another method."""
    runs = tables.load_runs(study_dir, runs_dir)
    runs["init"] = runs["label"].replace("lora", "gaussian")
    if not set(runs["init"]) <= set(STARTS):
        other = runs[~runs["init"].isin(STARTS)].iloc[0]
        raise InputError(
            f"{study_dir / 'sweep.jsonl'} lists run {other['run_id']} of {other['init']}, which is no start: they are "
            f"{', '.join(STARTS)}; delete it, `{tables.make_command(study_dir)}` lists one set of runs"
        )
    runs["place"] = runs["init"].map([*STARTS].index)
    runs = runs.sort_values(["model", "task", "place", "lr", "seed"], kind="stable", ignore_index=True)
    return runs.drop(columns="place")


def table(data: Data) -> pd.DataFrame:
    """A row a start: CELL, validation and test (means, fractions) with <split>_interval, n, collapsed, first_loss,
    final_loss; if gaussian is there, the test difference to it with its interval and p_holm; for both_zero,
    largest_entry of A and B.
    """
    main = collapses.apart(data.final[data.final["main"]])
    parts = [
        cells.summary(main[main["split"] == split], CELL).rename(
            columns={"mean": split, "interval": f"{split}_interval"}
        )
        for split in ("validation", "test")
    ]
    found = parts[0].drop(columns=["n", "collapsed"]).merge(parts[1], on=CELL, how="left")
    found = found.merge(data[LOSSES].drop(columns="runs"), on=CELL, how="left")
    differences = [
        against(group, ["init"], ["gaussian"])[["init", "difference", "interval", "p_holm"]]
        .rename(columns={"interval": "difference_interval"})
        .merge(group[CELL[:4]].drop_duplicates(), on="init")
        for _, group in data.scores.groupby(CELL[:3], sort=False)
        if "gaussian" in set(group["init"])
    ]
    if differences:
        found = found.merge(pd.concat(differences), on=CELL[:4], how="left")
    entries = data.frame(ENTRIES)
    if entries is None:
        return found.assign(largest_entry=np.nan)
    largest = losses.own(data).merge(entries, on="run_id").groupby(CELL)["largest_entry"].max()
    return found.merge(largest.reset_index(), on=CELL, how="left")


def texts(data: Data) -> pd.DataFrame:
    """The table as text."""
    rows = data["table.csv"]
    shown = rows[["model", "task", "init"]].assign(start=rows["init"].map(STARTS), lr=rows["lr"].map("{:g}".format))
    for end in ("first", "final"):
        shown[f"{end} loss"] = rows[f"{end}_loss"].map("{:.3f}".format)
    for split in ("validation", "test"):
        shown[split] = cells.mean_texts(rows.assign(mean=rows[split], interval=rows[f"{split}_interval"]))
    if "difference" in rows:
        parts = rows[["difference", "difference_interval", "p_holm"]].itertuples(index=False, name=None)
        shown["to gaussian"] = [None if pd.isna(part[0]) else difference_text(*part) for part in parts]
    return shown


def saddle(data: Data) -> list[str]:
    """What became of A = B = 0, a list item a task."""
    rows = data["table.csv"].query("init == 'both_zero'").to_dict("records")
    return [
        f"- {row['task']}: A = B = 0 stayed at the saddle: **{'no' if row['largest_entry'] else 'yes'}**. The largest "
        f"entry of A and B after training, n = {row['n']}, is {row['largest_entry']:g}"
        f"{'' if row['largest_entry'] else '; only the head was trained'}."
        for row in rows
    ]


def draw(data: Data, path: Path) -> Path:
    """init.png: for each model and task the training loss over steps, and the final test score; the starts' names
    beside their scores are the legend of both."""
    rows = data["table.csv"]
    groups = list(rows.groupby(CELL[:3], sort=False))
    names = [name for name in STARTS if name in set(rows["init"])]
    styles = {
        name: {"color": colour, "linestyle": ("-", "--", ":")[index % 3]}
        for index, (name, colour) in enumerate(zip(names, sns.color_palette(n_colors=len(names)), strict=True))
    }
    height = 0.4 + len(groups) * max(2.2, 0.5 + 0.28 * len(names))
    figure, axes = figures.panels(len(groups), 2, figures.PAGE_WIDTH, height, width_ratios=[1.35, 1])
    for (left, right), (key, own) in zip(axes, groups, strict=True):
        mine, runs = (frame[(frame[CELL[:3]] == list(key)).all(axis=1)] for frame in (data[CURVES], data.scores))
        for (name, _), curve in mine.groupby(["init", "lr"], sort=False):
            style = styles[str(name)]
            left.plot(curve["step"], curve["mean"], linewidth=1.2, **style)
            left.fill_between(curve["step"], curve["low"], curve["high"], color=style["color"], alpha=0.1, linewidth=0)
        left.set(title=f"{key[1]} ({key[0]})", xlabel="step", ylabel="training loss")
        left.margins(x=0.01)
        _scores(right, runs, own, styles)
        right.set_xlabel(f"test {key[2]} (%)")
    note = f"loss: mean over 1/{SMOOTHING} of the steps"
    if (rows["n"] > 1).any():
        note += " and over seeds; bands: lowest to highest seed"
        note += "; small points: single runs; bars: 95% interval, cut at the edge"
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def _scores(axis: Axes, runs: pd.DataFrame, own: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    rows = own.reset_index(drop=True)
    for place, (_, cell) in enumerate(rows.iterrows()):
        colour = styles[cell["init"]]["color"]
        seeds = runs[(runs["init"] == cell["init"]) & (runs["lr"] == cell["lr"])]
        axis.scatter(100 * seeds["value"], [place] * len(seeds), s=9, color=colour, alpha=0.5, linewidths=0)
        axis.errorbar(
            100 * cell["test"], place, xerr=100 * cell["test_interval"], fmt="o", markersize=4.5, elinewidth=1,
            capsize=2, color=colour,
        )  # fmt: skip
        axis.plot(
            [-0.17, -0.05], [place, place], transform=axis.get_yaxis_transform(), clip_on=False, **styles[cell["init"]]
        )
    axis.set_yticks(range(len(rows)), rows["init"] + rows["lr"].map(", lr {:g}".format))
    axis.tick_params(axis="y", length=0, pad=30)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    if runs["value"].notna().any():  # not every run has collapsed
        low, high = 100 * runs["value"].min(), 100 * runs["value"].max()
        margin = max(0.5, 0.1 * (high - low))
        axis.set_xlim(low - margin, high + margin)
    axis.grid(axis="x", linewidth=0.4)


STUDY = Study(
    runs=load,
    cell=CELL[:4],
    measures={LOSSES: losses.ends, CURVES: losses.curves, ENTRIES: losses.entries},
    tables={"table.csv": table},
    page=[
        "# Where A and B start",
        saddle,
        pages.table(texts),
        pages.text(READING, metrics=pages.metrics, head=pages.head_rate),
        pages.failed_runs,
    ],
    figures={"init.png": draw},
)
