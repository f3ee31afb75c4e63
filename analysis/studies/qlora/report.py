"""table.md of the study of quantised base weights: what bits cost, before and after training, in words and tables."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import tables, task_tables
from analysis.kit.cells import mean_texts
from analysis.kit.compare import METHOD, minus_texts
from analysis.kit.generation_report import caution
from analysis.kit.method_tables import TASK
from analysis.maths import statistics
from analysis.studies.qlora.runs import KEYS, MEMORY, NONE

READING = """\
The base weights are those of the linear layers of the pretrained body; all else keeps its precision. Bits and bytes are
as the libraries store them, with scales and tables. The error of a weight is ||W − W_q|| / ||W||, the mean over all;
with LoftQ, of its Q + s B A before training. Perplexity is that of the untrained base on held-out text; an encoder has
none: its hidden error is that of its last hidden states there, ||H − H_q|| / ||H||. Scores are test scores after
training: mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives no interval and no test. The
loss is lower where it is better. Differences are paired by seed, ± half-width of their own 95% interval; p is of the
paired t-test, by Holm's method corrected for all that is compared with one reference in one metric, and `*` marks
p < 0.05. Seeds vary the start and the order of training alone. LoRA trains and scores on the quantised weights; text is
written with LoRA merged into the de-quantised ones. Memory is what training took beyond what the process held before,
as it was measured: on a CPU with the full weights that are loaded first, and with libraries, so that it says little of
quantisation; the bytes of the model do."""
TUNED = """\
Each quantisation has its own learning rate, the best on validation data with the first seed, from as many tries."""
UNTUNED = "No learning rate was tuned in this study: every run has the one given here."


def report(table: pd.DataFrame, base: pd.DataFrame, by_type: pd.DataFrame, tuned: bool, failures: list[str]) -> str:
    """table.md, of the frames of `studies.qlora.tables`; tuned: whether learning rates were."""
    lines = ["# LoRA on quantised base weights", "", READING, "", TUNED if tuned else UNTUNED]
    for (model, task), cells in table.groupby(TASK[:2], sort=False):
        lines += ["", f"## {task} ({model})", "", *findings(cells), "", tables.markdown(quality(cells))]
    lines += ["", "## Before training"]
    for model in base["model"].unique():
        own, errors = (frame[frame["model"] == model] for frame in (base, by_type))
        lines += ["", f"{model}:", "", tables.markdown(untrained(own))]
        lines += ["", f"Error of the weights of {model} by type:", "", tables.markdown(typed(errors))]
    if failures:
        lines += ["", "## Failed runs", "", *failures]
    return "\n".join(lines) + "\n"


def name(row: Mapping[Any, Any]) -> str:
    """A row of the tables: its quantisation, and LoftQ's start if it has that."""
    kind = {NONE: "not quantised"}.get(row["quantization"], row["quantization"])
    return f"{kind}, LoftQ" if row["start"] else kind


def _base_name(row: Mapping[Any, Any]) -> str:
    return f"{row['quantization']}, {row['start']}" if row["start"] else name(row)


def findings(cells: pd.DataFrame) -> list[str]:
    """What the tests and means of a task say, as markdown list items."""
    main = cells[cells["main"]]
    lines = [f"- {caution(main['n'], int((main['quantization'] != NONE).sum()))}"]
    for metric, rows in cells.groupby("metric", sort=False):
        tests = rows[rows["none_p_holm"].notna()]
        if tests.empty:
            lines.append(
                f"- {metric}, against weights that are not quantised: no test, which takes two seeds that differ."
            )
        else:
            clear = tests["none_p_holm"] < 0.05
            worse = (tests["none_difference"] < 0) != (metric == "loss")
            lines.append(
                f"- {metric}, against no quantisation, {len(tests)} corrected tests: worse "
                f"{_named(tests[clear & worse])}; better {_named(tests[clear & ~worse])}; not told apart "
                f"{_named(tests[~clear])}."
            )
        for row in rows[rows["plain_pairs"].notna()].to_dict("records"):
            scale, digits = _scale(row)
            difference = statistics.difference_text(
                row["plain_difference"], row["plain_interval"], row["plain_p_holm"], scale, digits
            )
            closed = round(row["plain_closed"], 2) + 0.0  # no -0.0
            share = "" if pd.isna(closed) else f", {closed:.0%} of the gap of the means"
            start = f"LoftQ's start in place of the plain one, r = {row['r']:g}"
            lines.append(f"- {metric}, {start}: {difference}{share}.")
    return lines


def _named(rows: pd.DataFrame) -> str:
    return ", ".join(f"{name(row)} (r = {row['r']:g})" for row in rows.to_dict("records")) or "none"


def _scale(row: Mapping[Any, Any]) -> tuple[float, int]:
    return (1, 3) if row["metric"] == "loss" else (100, 1)


def quality(cells: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantisation, start and rank: what it reaches in each metric, and minus what is not quantised."""
    rows = cells[cells["main"]]
    columns: dict[str, Any] = {
        "base weights": [name(row) for row in rows.to_dict("records")],
        "bits": rows["bits"].map("{:.2f}".format),
        "r": rows["r"].map("{:g}".format),
        "lr": rows["lr"].map("{:g}".format),
    }
    for metric in cells["metric"].unique():
        found = cells[cells["metric"] == metric]
        scale, digits = _scale({"metric": metric})
        means, minus = mean_texts(found, scale, digits), minus_texts(found, NONE, scale, digits)
        columns[f"test {metric}"] = task_tables.looked_up(found, means, rows, METHOD)
        columns[f"{metric}, minus not quantised"] = task_tables.looked_up(found, minus, rows, METHOD)
    columns["training memory (MB)"] = _megabytes(rows[MEMORY])
    return pd.DataFrame(columns | {"training (s)": rows["train_seconds"].map("{:.0f}".format)})


def untrained(base: pd.DataFrame) -> pd.DataFrame:
    """A row for each base of a model: its size, the error of its weights, and what it does on held-out text."""
    columns: dict[str, Any] = {
        "base weights": [_base_name(row) for row in base.to_dict("records")],
        "bits": base["bits"].map("{:.2f}".format),
        "these layers (MB)": _megabytes(base["layer_bytes"]),
        "model (MB)": _megabytes(base["model_bytes"]),
        "error of weights": base["error"].map("{:.3f}".format),
    }
    for column in base.columns:
        if column.startswith("loss_") and base[column].notna().any():
            columns[f"perplexity, {column.removeprefix('loss_')}"] = np.exp(base[column]).map("{:,.1f}".format)
        if column.startswith("hidden_error_") and base[column].notna().any():
            texts = base[column].map("{:.3f}".format).where(base[column].notna())
            columns[f"hidden error, {column.removeprefix('hidden_error_')}"] = texts
    return pd.DataFrame(columns)


def _megabytes(values: pd.Series) -> pd.Series:
    return (values / 1e6).map("{:,.1f}".format).where(values.notna())


def typed(errors: pd.DataFrame) -> pd.DataFrame:
    """The errors of a model's weights by type, as text."""
    types = [column for column in errors.columns if column not in KEYS and errors[column].notna().any()]
    names = [_base_name(row) for row in errors.to_dict("records")]
    return pd.DataFrame({"base weights": names} | {one: errors[one].map("{:.3f}".format) for one in types})
