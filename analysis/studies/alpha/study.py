"""Is alpha a learning rate? Quality over alpha / r with one learning rate for all, and with the rate tuned for each."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.kit import cells, figures, marks, pages, tables
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.studies.alpha.rates import CELL, GROUP, KINDS, best_rates, claims, sort_out, with_rates
from lora.config import InputError

READING = """\
{metrics} on the test split in percent, mean ± half-width of the 95% Student-t interval (number of seeds). In the rows
`fixed` all were trained with one learning rate, in `tuned` with the one that was best on validation data for that r and
alpha, at one seed; `best rate` is that one (*: the last of those tried, so that a better one may lie outside)."""
CLAIM = """\
Spread: the largest mean minus the smallest over those alpha / r that both kinds of runs have, in points. The means of
seeds spread even where alpha has no effect: in brackets, what they then stay below in 95% of cases (studentized range,
variance left when the means of alphas and of seeds are taken out). It takes the noise to be equal at every alpha; one
seed gives no such bound. Slope: of log best rate over log alpha / r, by least squares. Were alpha a learning rate, it
would be negative: about -1 if A stays near its start (delta_w then grows as alpha / r times rate) and -1/2 once A and B
have both left it (rate squared); 0 if the two had nothing to do with each other. ± scatter: half-width of the 95%
interval from the deviations from the line; ± grid: how far it could move if every best rate were half a step of the
grid from the true one. Neither knows that the best rates come from one seed. {head}"""


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs with alpha_over_r, and the rates of `rates.with_rates`."""
    runs = tables.load_runs(study_dir, runs_dir).sort_values([*CELL[:2], "r", "alpha", "lr", "seed"], ignore_index=True)
    if runs[["r", "alpha"]].apply(pd.to_numeric, errors="coerce").isna().any(axis=None):
        raise InputError(f"{study_dir / 'sweep.jsonl'} lists runs that have no r and alpha; alpha is a study of LoRA")
    runs = runs.astype({"r": int, "alpha": float})
    return with_rates(runs.assign(alpha_over_r=runs["alpha"] / runs["r"]), study_dir)


def best(data: Data) -> pd.DataFrame:
    """The best rate of every cell."""
    return best_rates(data.runs)


def table(data: Data) -> pd.DataFrame:
    """A row a cell and kind of rate: what `kit.cells.summary` has."""
    return cells.summary(data.scores, [*CELL, "alpha_over_r", "kind", "lr"])


def texts(data: Data) -> pd.DataFrame:
    """Quality over alpha / r at the fixed and at the tuned rate, and the best rate."""
    rows, rates = data["table.csv"], data.once(best)
    edge = rates["at_edge"].map({True: "*", False: ""})
    rates = rates.assign(kind="best rate", text=rates["best_lr"].map("{:g}".format) + edge)
    long = pd.concat([rows.assign(text=cells.mean_texts(rows)), rates], ignore_index=True)
    long = long.sort_values("alpha_over_r", kind="stable")
    long["column"] = long["alpha_over_r"].map("alpha/r = {:g}".format)
    keys = ["model", "task", "weight_types", "r", "kind"]
    found = cells.each(long, keys, lambda own: dict(zip(own["column"], own["text"], strict=True)))
    place = found["kind"].map([*KINDS, "best rate"].index)
    found = found.assign(place=place).sort_values([*keys[:4], "place"]).drop(columns="place")
    return found[[*keys, *dict.fromkeys(long["column"])]].rename(columns={"kind": "rate"}).astype(object)


def verdicts(data: Data) -> list[str]:
    """The claim in words, a list item a group and r."""
    return [_verdict(row) for _, row in data["claim.csv"].iterrows()]


def _verdict(row: pd.Series) -> str:
    fixed, tuned = row["spread_fixed"], row["spread_tuned"]
    text = (
        f"- {row['task']}, {row['weight_types']}, r = {row['r']}, {row['compared']} values of alpha / r: spread "
        f"{_points(fixed, row['noise_fixed'])} at the fixed rate {row['fixed_lr']:g}"
    )
    if pd.isna(tuned):
        return f"{text}; no run has a tuned rate, so that the claim is not tested."
    text += f", {_points(tuned, row['noise_tuned'])} with it tuned: "
    if pd.isna(row["noise_fixed"]):
        text += "with one seed it cannot be told from noise."
    elif fixed <= row["noise_fixed"]:
        text += "at the fixed rate already no more than noise."
    elif tuned >= fixed:
        text += "**tuning the rate does not flatten the curve.**"
    else:
        rest = "to no more than noise" if tuned <= row["noise_tuned"] else "but not to the level of noise"
        text += f"**tuning the rate flattens the curve,** {rest}."
    if pd.isna(row["slope"]):
        return text
    scatter = "" if pd.isna(row["slope_scatter"]) else f"± {row['slope_scatter']:.2f} scatter, "
    text += f" Slope of the best rate {row['slope']:+.2f} ({scatter}± {row['slope_grid']:.2f} grid): "
    margin = np.nanmax([row["slope_scatter"], row["slope_grid"], 0])
    if abs(row["slope"]) <= margin:
        return f"{text}it cannot be told from 0."
    return text + ("**it falls, as claimed.**" if row["slope"] < 0 else "**it rises, against the claim.**")


def _points(spread: float, noise: float) -> str:
    return f"{100 * spread:.1f}" + ("" if pd.isna(noise) else f" [{100 * noise:.1f}]")


def draw(data: Data, path: Path) -> Path:
    """alpha.png: for each model, task and weight set quality over alpha / r with the fixed and with the tuned rate, and
    the best rate; without tuned rates, the first alone."""
    test, summary, rates = data.scores, data["table.csv"], data.once(best)
    groups = list(summary.groupby(GROUP, sort=False))
    kinds = [kind for kind in KINDS if kind in set(summary["kind"])]
    columns = len(kinds) + (not rates.empty)
    width = figures.PAGE_WIDTH if columns > 1 else 4.5
    figure, axes = figures.panels(len(groups), columns, width, 0.5 + 2.3 * len(groups), sharex=True)
    names = [f"r = {r}" for r in sorted(summary["r"].unique())]
    for row, (key, means) in zip(axes, groups, strict=True):
        _, task, metric, weight_types = key
        seeds = test[(test[GROUP] == list(key)).all(axis=1)]
        for axis, kind in zip(row, kinds, strict=False):
            points, lines = (f[f["kind"] == kind].assign(line="r = " + f["r"].astype(str)) for f in (seeds, means))
            figures.quality_lines(axis, points, lines, "alpha_over_r", "line", names)
            rate = f" ({points['lr'].iloc[0]:g})" if kind == "fixed" else ""
            axis.set_title(KINDS[kind] + rate)
            marks.limit(axis, seeds["value"], 0)
            axis.tick_params(labelleft=axis is row[0])
        row[0].set_ylabel(f"{task}, {weight_types}\ntest {metric} (%)")
        if not rates.empty:
            _draw_rates(row[-1], rates[(rates[GROUP] == list(key)).all(axis=1)], names)
    for axis in axes[-1]:
        axis.set_xlabel(r"$\alpha / r$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    return marks.finish(figure, summary["interval"], test["value"], path)


def _draw_rates(axis: Axes, best: pd.DataFrame, names: list[str]) -> None:
    for index, name in enumerate(names):
        cells = best[best["r"] == int(name.removeprefix("r = "))].sort_values("alpha_over_r")
        dodge = 2 ** (0.16 * (index - (len(names) - 1) / 2))
        half = 2 ** cells["half_step"]
        spread = [cells["best_lr"] * (1 - 1 / half), cells["best_lr"] * (half - 1)]
        axis.errorbar(
            cells["alpha_over_r"] * dodge, cells["best_lr"], yerr=spread, color=f"C{index}", marker="o", markersize=4,
            linewidth=1.2, elinewidth=1, capsize=2,
        )  # fmt: skip
    ratios = np.array(sorted(best["alpha_over_r"].unique()))
    x, y = (np.exp2(np.log2(best[name]).mean()) for name in ("alpha_over_r", "best_lr"))
    for slope, dots in ((-1, ":"), (-0.5, "-.")):
        axis.plot(ratios, y * (ratios / x) ** slope, color="0.5", linestyle=dots, linewidth=1, label=f"slope {slope:g}")
    axis.legend(frameon=False, loc="lower left")
    axis.set_yscale("log")
    figures.size_axis(axis, sorted(best["alpha_over_r"].unique()))
    axis.set_title("best rate (bar: half a grid step)")


STUDY = Study(
    runs=load,
    scores=sort_out,
    cell=[*CELL, "kind"],
    tables={"table.csv": table, "claim.csv": lambda data: claims(data.scores, data.once(best))},
    page=[
        "# Is alpha a learning rate?",
        pages.table(texts),
        pages.text(READING, metrics=pages.metrics),
        pages.under("## The claim", verdicts, pages.text(CLAIM, head=pages.head_rate)),
        pages.failed_runs,
    ],
    figures={"alpha.png": draw},
)
