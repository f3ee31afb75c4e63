"""Do more training data need a larger rank? LoRA's ranks on few training examples and on many."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import figures, language_runs, table_md, tables
from analysis.maths import statistics
from lora.config import InputError

TASK = ["model", "task", "metric"]
CELL = [*TASK, "r", "train_examples"]
READING = """\
{metrics} on the test split in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one seed
gives no interval. n: training examples, the first n of one order that is the same for all. Differences are in points,
paired by seed, ± half-width of their 95% interval; p is of the paired t-test, by Holm's method corrected for the
numbers of examples of a task, and `*` marks p < 0.05. alpha and the learning rate are the same for all ranks.
{head}"""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a task, rank and number of examples), gains.csv (largest minus smallest rank at
    each number of examples), table.md and rank_data.png.

    Returns their paths. Raises InputError if the runs are missing or damaged, if one is not of LoRA with one rank, or
    if a rank has two runs of a seed at one number of examples.
    """
    runs = language_runs.load(study_dir, runs_dir)
    if pd.to_numeric(runs["r"], errors="coerce").isna().any():
        raise InputError(f"{study_dir / 'sweep.jsonl'} lists runs that have no rank r; rank_data is a study of LoRA")
    runs = runs.astype({"r": int}).sort_values(["model", "task", "train_examples", "r", "seed"], ignore_index=True)
    final = tables.in_role(runs, "study")
    test = final[final["main"] & (final["split"] == "test")]
    if test.empty:
        raise InputError(f"{study_dir} has no finished run; `{tables.make_command(study_dir)}` trains them")
    tables.check_seeds(test, CELL, study_dir)
    summary, found = tables.summarise(test, CELL), gains(test)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "gains.csv", "table.md")}
    runs[[*tables.RUNS_COLUMNS, *language_runs.DETAILS]].to_csv(outputs["runs.csv"], index=False)
    summary.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    found.to_csv(outputs["gains.csv"], index=False, float_format="%.6g")
    epochs = final.groupby("train_examples")["epochs"].max()
    failures = tables.failure_lines(tables.read_sweep(study_dir).failed, tables.load_failed(study_dir, runs_dir))
    text = report(summary, found, epochs, tables.head_rate(runs), failures)
    table_md.write(outputs["table.md"], text, runs)
    return [*outputs.values(), draw(test, summary, study_dir / "rank_data.png")]


def gains(test: pd.DataFrame) -> pd.DataFrame:
    """What the largest rank gains over the smallest at each number of examples: TASK, train_examples, smallest,
    largest, the fields of `statistics.Paired`, and p_holm."""
    rows: list[dict[str, Any]] = []
    for key, cells in test.groupby([*TASK, "train_examples"], sort=False):
        small, large = cells["r"].min(), cells["r"].max()
        if small < large:
            ours, theirs = (cells[cells["r"] == r].set_index("seed")["value"] for r in (large, small))
            about = dict(zip([*TASK, "train_examples"], key, strict=True)) | {"smallest": small, "largest": large}
            rows.append(about | statistics.paired(ours, theirs)._asdict())
    columns = [*TASK, "train_examples", "smallest", "largest", *statistics.Paired._fields]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=table.groupby(TASK, sort=False)["p"].transform(statistics.holm))


def report(summary: pd.DataFrame, found: pd.DataFrame, epochs: pd.Series, head: str, failed: list[str]) -> str:
    """table.md: for each task the scores, a row a number of examples and a column a rank, and what rank gains."""
    metrics = ", ".join(summary["metric"].unique())
    lines = ["# Rank and the number of training examples", "", READING.format(metrics=metrics, head=head)]
    for key, cells in summary.groupby(TASK, sort=False):
        columns: dict[str, Any] = {"n": cells["train_examples"].drop_duplicates().tolist()}
        columns["epochs"] = [epochs[n] for n in columns["n"]]
        for r, rank in cells.groupby("r"):
            parts = [rank[name] for name in ("mean", "interval", "n")]
            texts = dict(zip(rank["train_examples"], map(statistics.mean_text, *parts), strict=True))
            columns[f"r = {r}"] = [texts.get(n) for n in columns["n"]]
        gained = found[(found[TASK] == list(key)).all(axis=1)].set_index("train_examples")
        if not gained.empty:
            title = f"r = {gained['largest'].max()} minus r = {gained['smallest'].min()}"
            columns[title] = [_gain(gained.loc[n]) if n in gained.index else None for n in columns["n"]]
        table = pd.DataFrame(columns).astype({"n": str, "epochs": str})
        lines += ["", f"## {key[1]} ({key[0]})", "", tables.markdown(table)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _gain(row: pd.Series) -> str:
    text = statistics.difference_text(row["difference"], row["interval"], row["p_holm"])
    return f"{text} ({statistics.pairs_text(row['pairs'])})"


def draw(test: pd.DataFrame, summary: pd.DataFrame, path: Path) -> Path:
    """Quality against the number of training examples: a panel for each model and task, a line for each rank."""
    cells = list(summary.groupby(TASK, sort=False))
    figure, axes = figures.panels(1, len(cells), figures.PAGE_WIDTH if len(cells) > 1 else 5.0, 3.0)
    ranks = sorted(summary["r"].unique())
    for axis, ((model, task, metric), means) in zip(axes.flat, cells, strict=True):
        seeds = test[(test["model"] == model) & (test["task"] == task)]
        figures.quality_lines(axis, seeds, means, "train_examples", "r", ranks)
        axis.set(title=f"{task} ({model})", xlabel="training examples", ylabel=f"test {metric} (%)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="rank r", loc="outside right upper", frameon=False)
    figure.supxlabel(figures.interval_note(summary["interval"]), fontsize=7)
    return figures.save(figure, path)
