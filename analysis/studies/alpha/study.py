"""Is alpha a learning rate? Quality over alpha / r with one learning rate for all, and with the rate tuned for each."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.kit import figures, table_md, tables
from analysis.maths.statistics import mean_text
from analysis.studies.alpha.rates import CELL, GROUP, KINDS, best_rates, claims, sort_out
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


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a cell and kind of rate), claim.csv (spreads and slopes), table.md, alpha.png.

    Returns their paths. Raises InputError if the runs are missing or damaged, if a seed of a cell has two runs, or if
    the cells of a group share no learning rate.
    """
    runs = tables.load_runs(study_dir, runs_dir).sort_values([*CELL[:2], "r", "alpha", "lr", "seed"], ignore_index=True)
    if runs[["r", "alpha"]].apply(pd.to_numeric, errors="coerce").isna().any(axis=None):
        raise InputError(f"{study_dir / 'sweep.jsonl'} lists runs that have no r and alpha; alpha is a study of LoRA")
    runs = runs.astype({"r": int, "alpha": float})
    runs["alpha_over_r"] = runs["alpha"] / runs["r"]
    best = best_rates(runs)
    test = sort_out(runs, best, study_dir)
    summary = tables.summarise(test, [*CELL, "alpha_over_r", "kind", "lr"])
    claim = claims(test, best)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "claim.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    summary.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    claim.to_csv(outputs["claim.csv"], index=False, float_format="%.6g")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs["table.md"], report(summary, best, claim, tables.head_rate(runs), failed), runs)
    return [*outputs.values(), draw(test, summary, best, study_dir / "alpha.png")]


def report(summary: pd.DataFrame, best: pd.DataFrame, claim: pd.DataFrame, head: str, failed: list[str]) -> str:
    """table.md: quality over alpha / r, the claim in numbers and in words, and the runs that failed."""
    parts = (summary[name] for name in ("mean", "interval", "n"))
    rows = summary.assign(text=[mean_text(*part) for part in zip(*parts, strict=True)])
    rates = best.assign(
        kind="best rate", text=[f"{row.best_lr:g}{'*' if row.at_edge else ''}" for row in best.itertuples()]
    )
    long = pd.concat([rows, rates], ignore_index=True)
    long["column"] = [f"alpha/r = {ratio:g}" for ratio in long["alpha_over_r"]]
    columns = long.sort_values("alpha_over_r")["column"].unique()
    wide = long.pivot(index=["model", "task", "weight_types", "r", "kind"], columns="column", values="text")
    order = long[["model", "task", "weight_types", "r", "kind"]].drop_duplicates()
    order = order.sort_values(["model", "task", "weight_types", "r"], kind="stable")
    wide = (
        wide.reindex(index=pd.MultiIndex.from_frame(order), columns=list(columns))
        .reset_index()
        .rename(columns={"kind": "rate"})
    )
    metrics = ", ".join(summary["metric"].unique())
    lines = [
        "# Is alpha a learning rate?",
        "",
        tables.markdown(wide.astype(object)),
        "",
        READING.format(metrics=metrics),
    ]
    lines += ["", "## The claim", "", *[_verdict(row) for _, row in claim.iterrows()], "", CLAIM.format(head=head)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


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


def draw(test: pd.DataFrame, summary: pd.DataFrame, best: pd.DataFrame, path: Path) -> Path:
    """alpha.png: for each model, task and weight set quality over alpha / r with the fixed and with the tuned rate, and
    the best rate; without tuned rates, the first alone."""
    groups = list(summary.groupby(GROUP, sort=False))
    kinds = [kind for kind in KINDS if kind in set(summary["kind"])]
    columns = len(kinds) + (not best.empty)
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
            axis.set_ylim(100 * seeds["value"].min() - 1, 100 * seeds["value"].max() + 1)
            axis.tick_params(labelleft=axis is row[0])
        row[0].set_ylabel(f"{task}, {weight_types}\ntest {metric} (%)")
        if not best.empty:
            _draw_rates(row[-1], best[(best[GROUP] == list(key)).all(axis=1)], names)
    for axis in axes[-1]:
        axis.set_xlabel(r"$\alpha / r$")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names), frameon=False)
    figure.supxlabel(figures.interval_note(summary["interval"]), fontsize=7)
    return figures.save(figure, path)


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
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axis.minorticks_off()
    axis.grid(axis="y", linewidth=0.4)
    axis.set_title("best rate (bar: half a grid step)")
