"""Where A and B start, and what comes of it: training loss and final quality from every start."""

from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, table_md, tables
from analysis.maths.statistics import against, difference_text, mean_text
from analysis.studies.init import losses as start_losses
from analysis.studies.init.losses import CELL, CURVES, ENTRIES, LOSSES, SMOOTHING
from experiments.records.source import Runs
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


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv, table.md, losses.csv, loss_curves.csv and init.png; returns their paths.

    And saddle.csv if there are runs of both_zero. Raises InputError if runs are missing or damaged, as `start_losses`
    does, if a seed of a start has two runs, or if a run has no start of STARTS.
    """
    runs = tables.load_runs(study_dir, runs_dir)
    runs["init"] = runs["label"].replace("lora", "gaussian")
    places = {name: place for place, name in enumerate(STARTS)}
    if not set(runs["init"]) <= set(STARTS):
        other = runs[~runs["init"].isin(STARTS)].iloc[0]
        raise InputError(
            f"{study_dir / 'sweep.jsonl'} lists run {other['run_id']} of {other['init']}, which is no start: they are "
            f"{', '.join(STARTS)}; delete it, `{tables.make_command(study_dir)}` lists one set of runs"
        )
    runs["place"] = runs["init"].map(places)
    runs = runs.sort_values(["model", "task", "place", "lr", "seed"], kind="stable", ignore_index=True)
    final = tables.in_role(runs[runs["main"]], "study")
    if final.empty:
        raise InputError(f"{study_dir} has no finished run; `{tables.make_command(study_dir)}` trains them")
    tables.check_seeds(final, ["model", "task", "init", "split"], study_dir)
    stored, each = Runs(study_dir, runs_dir), final.drop_duplicates("run_id")
    ends, curves = start_losses.losses(each, stored, study_dir)
    zero = each[each["init"] == "both_zero"]
    entries = zero.assign(largest_entry=start_losses.largest_entries(zero, stored, study_dir))
    table = tabulate(final, ends, entries)

    names = ["runs.csv", "table.csv", LOSSES, CURVES, "table.md", *([] if zero.empty else [ENTRIES])]
    outputs = {name: study_dir / name for name in names}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs["table.md"], report(table, tables.head_rate(runs), failed), runs)
    return [*outputs.values(), draw(final, table, curves, study_dir / "init.png")]


def tabulate(final: pd.DataFrame, ends: pd.DataFrame, entries: pd.DataFrame) -> pd.DataFrame:
    """A row a start: CELL, validation and test (means, fractions) with <split>_interval, n, first_loss, final_loss; if
    gaussian is there, the test difference to it with its interval and p_holm; for both_zero, largest_entry of A and B.

    ends: of `start_losses.losses`; entries: the runs of both_zero, with `start_losses.largest_entries`.
    """
    parts = []
    for split in ("validation", "test"):
        means = tables.summarise(final[final["split"] == split], CELL)
        parts.append(means.rename(columns={"mean": split, "interval": f"{split}_interval"}).set_index(CELL))
    table = parts[0].drop(columns="n").join(parts[1])
    table = table.join(ends.drop(columns="runs").set_index(CELL))
    differences = []
    for _, group in final[final["split"] == "test"].groupby(CELL[:3], sort=False):
        if "gaussian" in set(group["init"]):
            found = against(group, ["init"], ["gaussian"])[["init", "difference", "interval", "p_holm"]]
            differences.append(found.merge(group[CELL[:4]].drop_duplicates(), on="init"))
    table = table.reset_index()
    if differences:
        found = pd.concat(differences).rename(columns={"interval": "difference_interval"})
        table = table.merge(found, on=CELL[:4], how="left")
    largest = entries.groupby(CELL, sort=False)["largest_entry"].max()
    return table.merge(largest.reset_index(), on=CELL, how="left")


def report(table: pd.DataFrame, head: str, failed: list[str]) -> str:
    """table.md: what became of A = B = 0, the table, how to read it, and the runs that failed."""
    cells = table[["model", "task", "init"]].assign(start=table["init"].map(STARTS))
    cells["lr"] = table["lr"].map("{:g}".format)
    cells["first loss"], cells["final loss"] = (table[f"{end}_loss"].map("{:.3f}".format) for end in ("first", "final"))
    for split in ("validation", "test"):
        parts = (table[name] for name in (split, f"{split}_interval", "n"))
        cells[split] = [mean_text(*part) for part in zip(*parts, strict=True)]
    if "difference" in table:
        parts = (table[name] for name in ("difference", "difference_interval", "p_holm"))
        cells["to gaussian"] = [
            None if pd.isna(part[0]) else difference_text(*part) for part in zip(*parts, strict=True)
        ]
    lines = ["# Where A and B start", "", *[_saddle(row) for _, row in table.iterrows() if row["init"] == "both_zero"]]
    lines += ["", tables.markdown(cells), "", READING.format(metrics=", ".join(table["metric"].unique()), head=head)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _saddle(row: pd.Series) -> str:
    stayed = "yes" if row["largest_entry"] == 0 else "no"
    return (
        f"- {row['task']}: A = B = 0 stayed at the saddle: **{stayed}**. The largest entry of A and B after training, "
        f"n = {row['n']}, is {row['largest_entry']:g}{'; only the head was trained' if stayed == 'yes' else ''}."
    )


def draw(final: pd.DataFrame, table: pd.DataFrame, curves: pd.DataFrame, path: Path) -> Path:
    """init.png: for each model and task the training loss over steps, and the final test score; the starts' names
    beside their scores are the legend of both."""
    groups = list(table.groupby(CELL[:3], sort=False))
    names = list(dict.fromkeys(name for name in STARTS if name in set(table["init"])))
    styles = {
        name: {"color": colour, "linestyle": ("-", "--", ":")[index % 3]}
        for index, (name, colour) in enumerate(zip(names, sns.color_palette(n_colors=len(names)), strict=True))
    }
    height = 0.4 + len(groups) * max(2.2, 0.5 + 0.28 * len(names))
    figure, axes = figures.panels(len(groups), 2, figures.PAGE_WIDTH, height, width_ratios=[1.35, 1])
    for (left, right), (key, cells) in zip(axes, groups, strict=True):
        mine, runs = (frame[(frame[CELL[:3]] == list(key)).all(axis=1)] for frame in (curves, final))
        for (name, _), curve in mine.groupby(["init", "lr"], sort=False):
            style = styles[str(name)]
            left.plot(curve["step"], curve["mean"], linewidth=1.2, **style)
            left.fill_between(curve["step"], curve["low"], curve["high"], color=style["color"], alpha=0.1, linewidth=0)
        left.set(title=f"{key[1]} ({key[0]})", xlabel="step", ylabel="training loss")
        left.margins(x=0.01)
        _scores(right, runs[runs["split"] == "test"], cells, styles)
        right.set_xlabel(f"test {key[2]} (%)")
    note = f"loss: mean over 1/{SMOOTHING} of the steps"
    if (table["n"] > 1).any():
        note += " and over seeds; bands: lowest to highest seed"
        note += "; small points: single runs; bars: 95% interval, cut at the edge"
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def _scores(axis: Axes, runs: pd.DataFrame, cells: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    rows = cells.reset_index(drop=True)
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
    low, high = 100 * runs["value"].min(), 100 * runs["value"].max()
    margin = max(0.5, 0.1 * (high - low))
    axis.set(xlim=(low - margin, high + margin), ylim=(len(rows) - 0.5, -0.5))
    axis.grid(axis="x", linewidth=0.4)
