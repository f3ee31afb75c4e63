"""Latency of one forward pass with adapters and with LoRA: the paper's Table 1 and Figure 5."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import cells, measured, pages, tables
from analysis.kit.data import Data
from analysis.kit.study import Study
from analysis.maths.statistics import paired
from analysis.studies.latency import draw
from analysis.studies.latency.draw import ADAPTERS, LORA
from experiments.measure.schemas import TRIALS
from lora.config import InputError

CELL = ["model", "batch", "length"]
WHO = ["contender", "bottleneck"]
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


def trials(data: Data) -> pd.DataFrame:
    """trials.csv. Raises InputError if a round, or the base model, is missing somewhere."""
    found = data.read(TRIALS)
    rounds = found.groupby([*CELL, *WHO])["round"].agg(["nunique", "size"]).reset_index()
    whole = rounds.groupby(CELL)["nunique"].nunique().eq(1).all() and rounds["nunique"].eq(rounds["size"]).all()
    with_base = found[found["contender"] == "base"][CELL].drop_duplicates()
    if not whole or len(with_base) != len(found[CELL].drop_duplicates()):
        raise InputError(
            f"{data.folder / TRIALS.file} has cells in which rounds or the base model are missing; delete "
            f"{data.folder}, `{tables.make_command(data.folder)}` measures again"
        )
    return found


def left_out(data: Data) -> set[tuple[str, int, int]]:
    """(model, batch, length) that were not measured, as a pass takes too long."""
    found = measured.machine(data.folder)
    try:
        return {(str(model), int(batch), int(length)) for model, batch, length in found["left_out"]}
    except (KeyError, TypeError, ValueError) as error:
        advice = f"delete {data.folder}, `{tables.make_command(data.folder)}` measures again"
        raise InputError(
            f"{data.folder / measured.MACHINE} is damaged: left_out is no list of cells; {advice}"
        ) from error


def ours(data: Data) -> pd.DataFrame:
    """Our cells, of `compare`."""
    return compare(data.once(trials))


def table(data: Data) -> pd.DataFrame:
    """Our cells, and the paper's below."""
    rows = cells.beside_paper(data.once(ours), paper_cells())
    return rows[["source", *rows.columns.drop("source")]]


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
    found = groups.agg(
        rounds=("round", "size"),
        mean=("seconds", "mean"),
        std=("seconds", "std"),
        q1=("seconds", lambda seconds: seconds.quantile(0.25)),
        median=("seconds", "median"),
        q3=("seconds", lambda seconds: seconds.quantile(0.75)),
        slowdown_median=("value", "median"),
    ).reset_index()
    means = tables.summarise(rounds, keys).rename(columns={"mean": "slowdown", "interval": "slowdown_interval"})
    found = found.merge(means.drop(columns="n"), on=keys)
    models = list(trials["model"].unique())
    order = found["contender"].map(["base", *LORA, *ADAPTERS].index)
    found = found.assign(model_order=found["model"].map(models.index), order=order)
    by = ["model_order", "length", "batch", "order", "bottleneck"]
    return found.sort_values(by, ignore_index=True).drop(columns=["model_order", "order"])


def paper_cells() -> pd.DataFrame:
    """The paper's Table 1 with the columns of `compare`; added_parameters are those of the adapters in its column."""
    table = cells.paper("table01_latency")
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


def table_1(rows: pd.DataFrame) -> pd.DataFrame:
    """The paper's layout: a column for each of its three cells; the rows of each of our models, then its own."""
    paper = paper_cells()
    columns = paper[["batch", "length", "added_parameters"]].drop_duplicates().to_numpy().tolist()
    titles = {
        f"batch {batch}, length {length}, {added / 1e6:g}M": (batch, length, added) for batch, length, added in columns
    }
    ours = rows.groupby("model", sort=False)
    blocks = [(f"ours, {model}", own, ["base", *LORA, *reversed(ADAPTERS)]) for model, own in ours]
    blocks.append((PAPER, paper, list(paper["contender"].unique())))
    found = []
    for source, block, names in blocks:
        for name in names:
            row: dict[str, str | None] = {"source": source, "method": name}
            for title, key in titles.items():
                row[title] = _milliseconds(_nearest(block, name, *key), source != PAPER)
            found.append(row)
    return pd.DataFrame(found)


def _nearest(rows: pd.DataFrame, contender: str, batch: int, length: int, parameters: int) -> pd.DataFrame:
    """The row of a contender in a cell, or none; of several bottlenecks that with the nearest number of parameters."""
    found = rows[(rows["contender"] == contender) & (rows["batch"] == batch) & (rows["length"] == length)]
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


def verdicts(rows: pd.DataFrame) -> list[str]:
    """What the cells of one model say: LoRA and the control over all of them, and the adapters' range."""
    lines, medians = [], {}
    for name in LORA:
        own = rows[rows["contender"] == name]
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
        of = rows[rows["contender"] == name].sort_values("slowdown_median").to_dict("records")
        least, most = (
            f"{100 * row['slowdown_median']:+.1f}% "
            f"(m = {row['bottleneck']}, batch {row['batch']}, length {row['length']})"
            for row in (of[0], of[-1])
        )
        lines.append(f"- {name}: from {least} to {most}, medians.")
    return lines


def by_cell(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Slow-downs of these contenders, a row a cell; the base model's own time with its quartiles is in front."""

    def texts(own: pd.DataFrame) -> dict[str, Any]:
        base = own[own["contender"] == "base"].iloc[0]
        median, q1, q3 = (f"{1000 * base[name]:.1f}" for name in ("median", "q1", "q3"))
        row = {"rounds": base["rounds"], "base, ms, median [quartiles]": f"{median} [{q1}, {q3}]"}
        for who in own[own["contender"].isin(list(names))].to_dict("records"):
            title = f"{who['contender']}, m = {who['bottleneck']}" if who["bottleneck"] else who["contender"]
            mean = _percent(who["slowdown"], who["slowdown_interval"])
            row[title] = f"{100 * who['slowdown_median']:+.1f} ({mean})"
        return row

    return cells.each(rows, ["batch", "length"], texts)


def measured_cells(data: Data) -> pd.DataFrame:
    """Our rows of the table, in a section those of its model."""
    return data["table.csv"].query("source == 'ours'").astype({"bottleneck": int, "rounds": int})


def not_measured(data: Data) -> str:
    """A sentence on the cells of a model that were left out."""
    own = [f"{batch} × {length}" for model, batch, length in sorted(left_out(data)) if model == data.place["model"]]
    return f"Left out, because a pass takes too long (batch × length): {', '.join(own)}." if own else ""


STUDY = Study(
    runs=None,
    reads=(TRIALS.file, measured.MACHINE),
    tables={"table.csv": table},
    page=[
        "# Inference latency (the paper's Table 1 and Figure 5)",
        pages.table(lambda data: table_1(data.once(ours))),
        READING,
        pages.under("## Measured on", pages.machine("lora")),
        pages.sections(
            "## {model}",
            lambda data: verdicts(measured_cells(data)),
            DETAILS,
            pages.table(lambda data: by_cell(measured_cells(data), LORA)),
            pages.table(lambda data: by_cell(measured_cells(data), ADAPTERS)),
            not_measured,
            by=["model"],
            where={"source": "ours"},
        ),
    ],
    figures={
        "fig5.png": lambda data, _: draw.grids(data.once(ours), left_out(data), data.folder),
        "lora.png": lambda data, path: draw.lora(data.once(ours), path),
    },
)
