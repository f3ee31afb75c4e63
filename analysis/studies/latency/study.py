"""Latency of one forward pass with adapters and with LoRA: the paper's Table 1 and Figure 5."""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import tables
from analysis.maths.statistics import paired
from analysis.studies.latency.figures import ADAPTERS, LORA, draw_grid, draw_lora
from experiments.measure.schemas import TRIALS
from lora.config import InputError

INPUTS = (TRIALS.file, "machine.json")
CELL = ["model", "batch", "length"]
WHO = ["contender", "bottleneck"]
MACHINE = (
    "processor",
    "device",
    "precision",
    "threads",
    "OMP_WAIT_POLICY",
    "torch",
    "transformers",
    "lora",
    "started",
    "finished",
)
PAPER = "paper, GPT-2 medium, Quadro RTX8000"
PAPER_NAMES = {"finetune_or_lora": "base"}
READING = """\
Milliseconds of one forward pass, mean ± standard deviation over rounds (the paper: 100 trials), and in brackets the
slow-down against the base model; ours is the median over rounds of the ratio to the base model in the same round. Base
is the model with nothing added, as after full fine-tuning; the paper has one row for it and for merged LoRA. The
columns say how many parameters the paper's adapters have: ours are of the bottleneck m that comes nearest among those
measured. A dash: not measured. Weights are random, on which the time does not depend."""
DETAILS = """\
Slow-down in percent: median over rounds (mean ± half-width of its 95% Student-t interval). In a round every contender
runs once, in an order drawn anew. The control is the base model a second time: what it shows is the measurement's
noise. One disturbed round moves the mean and widens its interval, but not the median."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes table.csv, table.md, fig5_<model>.png for each model and lora.png from INPUTS; returns their paths.

    No stored run is read. Raises InputError if a file of INPUTS is damaged.
    """
    trials, machine = _read(study_dir)
    cells = compare(trials)
    paths = [study_dir / "table.csv", study_dir / "table.md"]
    ours = cells.assign(source="ours")
    table = pd.concat([ours, paper_cells().assign(source="paper")], ignore_index=True)
    table[["source", *ours.columns[:-1]]].to_csv(paths[0], index=False, float_format="%.6g")
    paths[1].write_text(report(cells, machine), encoding="utf-8")
    for model, own in cells.groupby("model", sort=False):
        left_out = {(batch, length) for whose, batch, length in machine["left_out"] if whose == model}
        name = str(model).strip("./").replace("/", "_")
        paths.append(draw_grid(own, str(model), left_out, study_dir / f"fig5_{name}.png"))
    return [*paths, draw_lora(cells, study_dir / "lora.png")]


def _read(study_dir: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    advice = f"delete {study_dir}, `{tables.make_command(study_dir)}` measures again"
    try:
        trials = TRIALS.read(study_dir / TRIALS.file)
        machine = json.loads((study_dir / INPUTS[1]).read_text(encoding="utf-8"))
        machine["left_out"] = [(str(model), int(batch), int(length)) for model, batch, length in machine["left_out"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the measurement in {study_dir} is damaged ({' '.join(str(error).split())}); {advice}"
        ) from error
    rounds = trials.groupby([*CELL, *WHO])["round"].agg(["nunique", "size"]).reset_index()
    whole = rounds.groupby(CELL)["nunique"].nunique().eq(1).all() and rounds["nunique"].eq(rounds["size"]).all()
    with_base = trials[trials["contender"] == "base"][CELL].drop_duplicates()
    if trials.empty or not whole or len(with_base) != len(trials[CELL].drop_duplicates()):
        raise InputError(f"{study_dir / TRIALS.file} has cells in which rounds or the base model are missing; {advice}")
    return trials, machine


def compare(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell and contender: seconds (mean, standard deviation, quartiles) and slow-downs, fractions.

    A round's slow-down is the time over that of the base model in the same round, less 1: what slows the machine down
    for a while is in both. slowdown is the mean over rounds, slowdown_interval the half-width of its 95% Student-t
    interval, slowdown_median the median.
    """
    base = trials[trials["contender"] == "base"].set_index([*CELL, "round"])["seconds"].rename("base")
    rounds = trials.join(base, on=[*CELL, "round"])
    rounds["value"] = rounds["seconds"] / rounds["base"] - 1
    keys = [*CELL, *WHO, "added_parameters"]
    groups = rounds.groupby(keys, sort=False)
    cells = groups.agg(
        rounds=("round", "size"),
        mean=("seconds", "mean"),
        std=("seconds", "std"),
        q1=("seconds", lambda seconds: seconds.quantile(0.25)),
        median=("seconds", "median"),
        q3=("seconds", lambda seconds: seconds.quantile(0.75)),
        slowdown_median=("value", "median"),
    ).reset_index()
    means = tables.summarise(rounds, keys).rename(columns={"mean": "slowdown", "interval": "slowdown_interval"})
    cells = cells.merge(means.drop(columns="n"), on=keys)
    models = list(trials["model"].unique())
    order = cells["contender"].map(["base", *LORA, *ADAPTERS].index)
    cells = cells.assign(model_order=cells["model"].map(models.index), order=order)
    by = ["model_order", "length", "batch", "order", "bottleneck"]
    return cells.sort_values(by, ignore_index=True).drop(columns=["model_order", "order"])


def paper_cells() -> pd.DataFrame:
    """The paper's Table 1 with the columns of `compare`; added_parameters are those of the adapters in its column."""
    table = pd.read_csv(str(files("analysis").joinpath("paper/table01_latency.csv")))
    return pd.DataFrame(
        {
            "model": "gpt2-medium",
            "batch": table["batch_size"],
            "length": table["seq_len"],
            "contender": table["method"].replace(PAPER_NAMES),
            "added_parameters": (table["adapter_params"].str.removesuffix("M").astype(float) * 1e6).astype(int),
            "rounds": 100,
            "mean": table["latency_ms"] / 1000,
            "std": table["latency_std_ms"] / 1000,
            "slowdown": table["slowdown_percent"] / 100,
        }
    )


def report(cells: pd.DataFrame, machine: dict[str, Any]) -> str:
    """table.md: Table 1 of the paper and ours, what it was measured on, and each model's cells."""
    lines = ["# Inference latency (the paper's Table 1 and Figure 5)", "", tables.markdown(table_1(cells)), "", READING]
    lines += ["", "## Measured on", "", *(f"- {name}: {machine.get(name)}" for name in MACHINE)]
    for model, own in cells.groupby("model", sort=False):
        left_out = [f"{batch} × {length}" for name, batch, length in machine["left_out"] if name == model]
        lines += ["", f"## {model}", "", *verdicts(own), "", DETAILS, "", tables.markdown(by_cell(own, LORA))]
        lines += ["", tables.markdown(by_cell(own, ADAPTERS))]
        if left_out:
            lines += ["", f"Left out, because a pass takes too long (batch × length): {', '.join(left_out)}."]
    return "\n".join(lines) + "\n"


def table_1(cells: pd.DataFrame) -> pd.DataFrame:
    """The paper's layout: a column for each of its three cells; the rows of each of our models, then its own."""
    paper = paper_cells()
    columns = paper[["batch", "length", "added_parameters"]].drop_duplicates().to_numpy().tolist()
    titles = {
        f"batch {batch}, length {length}, {added / 1e6:g}M": (batch, length, added) for batch, length, added in columns
    }
    ours = cells.groupby("model", sort=False)
    blocks = [(f"ours, {model}", own, ["base", *LORA, *reversed(ADAPTERS)]) for model, own in ours]
    blocks.append((PAPER, paper, list(paper["contender"].unique())))
    rows = []
    for source, block, names in blocks:
        for name in names:
            row: dict[str, str | None] = {"source": source, "method": name}
            for title, key in titles.items():
                row[title] = _milliseconds(_nearest(block, name, *key), source != PAPER)
            rows.append(row)
    return pd.DataFrame(rows)


def _nearest(cells: pd.DataFrame, contender: str, batch: int, length: int, parameters: int) -> pd.DataFrame:
    """The row of a contender in a cell, or none; of several bottlenecks that with the nearest number of parameters."""
    found = cells[(cells["contender"] == contender) & (cells["batch"] == batch) & (cells["length"] == length)]
    return found.iloc[np.argsort(np.abs(np.log(found["added_parameters"].clip(lower=1) / parameters)))[:1]]


def _milliseconds(found: pd.DataFrame, ours: bool) -> str | None:
    if found.empty:
        return None
    row = found.iloc[0]
    text = f"{1000 * row['mean']:.1f}" + ("" if pd.isna(row["std"]) else f" ± {1000 * row['std']:.1f}")
    if row["contender"] == "base":
        return text
    notes = [f"{100 * row['slowdown_median' if ours else 'slowdown']:+.1f}%"]
    if ours and row["contender"] in ADAPTERS:
        notes += [f"m = {row['bottleneck']}", f"{row['added_parameters'] / 1e6:.1f}M"]
    return f"{text} ({', '.join(notes)})"


def _percent(mean: float, interval: float) -> str:
    return f"{100 * mean:+.1f}" + ("" if pd.isna(interval) else f" ± {100 * interval:.1f}")


def verdicts(cells: pd.DataFrame) -> list[str]:
    """What the cells of one model say: LoRA and the control over all of them, and the adapters' range."""
    lines, medians = [], {}
    for name in LORA:
        own = cells[cells["contender"] == name]
        medians[name] = own.set_index(["batch", "length"])["slowdown_median"]
        over = tables.summarise(own.assign(value=own["slowdown_median"]), ["contender"]).iloc[0]
        known = own.dropna(subset="slowdown_interval")
        hold = (known["slowdown"].abs() <= known["slowdown_interval"]).sum()
        lines.append(
            f"- {name}: {_percent(over['mean'], over['interval'])}%, mean of the medians of {len(own)} cells, with its "
            f"95% interval; in {hold} of {len(known)} cells the interval over rounds holds 0."
        )
    merged = paired(medians["lora_merged"], medians["control"])
    less = _percent(merged.difference, merged.interval)
    lines.append(f"- lora_merged less control, cell by cell: {less} points, mean with its 95% interval.")
    for name in ADAPTERS:
        rows = cells[cells["contender"] == name].sort_values("slowdown_median").to_dict("records")
        least, most = (
            f"{100 * row['slowdown_median']:+.1f}% "
            f"(m = {row['bottleneck']}, batch {row['batch']}, length {row['length']})"
            for row in (rows[0], rows[-1])
        )
        lines.append(f"- {name}: from {least} to {most}, medians.")
    return lines


def by_cell(cells: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Slow-downs of these contenders, a row a cell; the base model's own time with its quartiles is in front."""
    rows = []
    for (batch, length), own in cells.groupby(["batch", "length"], sort=False):
        base = own[own["contender"] == "base"].iloc[0]
        median, q1, q3 = (f"{1000 * base[name]:.1f}" for name in ("median", "q1", "q3"))
        row = {"batch": batch, "length": length, "rounds": base["rounds"]}
        row["base, ms, median [quartiles]"] = f"{median} [{q1}, {q3}]"
        for who in own[own["contender"].isin(list(names))].to_dict("records"):
            title = f"{who['contender']}, m = {who['bottleneck']}" if who["bottleneck"] else who["contender"]
            mean = _percent(who["slowdown"], who["slowdown_interval"])
            row[title] = f"{100 * who['slowdown_median']:+.1f} ({mean})"
        rows.append(row)
    return pd.DataFrame(rows)
