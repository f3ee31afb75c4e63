"""The bases of a study of quantised weights: which a run starts from, and what was measured on them untrained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import language_runs, naming, tables
from analysis.kit.data import Data
from experiments.csv_schema import Schema
from experiments.measure.schemas import QUANTIZED_BASE, QUANTIZED_WEIGHTS
from experiments.records.source import Run, Runs
from lora.config import InputError

NONE = "none"  # in the column quantization: the base weights are in 16 or 32 bits
QUANTIZATIONS = (NONE, "int8", "nf4", "int2")  # from many bits to few
KEYS = ["model", "quantization", "start"]
MEMORY = "training_memory_bytes"


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs, arranged, with quantization, start (LoftQ's, as quantized_base.csv names it; "" for others) and MEMORY
    (NaN for runs older than its measurement). Settings end with the quantisation."""
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    details = {"quantization": _quantization, MEMORY: lambda run: run.metrics.get(MEMORY)}
    return _named(tables.with_details(runs, study_dir, runs_dir, details).astype({MEMORY: float}))


def load_failed(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The frame of `kit.tables.load_failed`, with settings as in `load`."""
    failed, runs = tables.load_failed(study_dir, runs_dir), Runs(study_dir, runs_dir)
    kinds = [_quantization(run) for run in map(runs.failed, failed["run_id"]) if run]
    return _named(failed.assign(quantization=pd.Series(kinds, failed.index, dtype=object)))


def _quantization(run: Run) -> str:
    return run.config["model"].get("quantization") or NONE


def _named(runs: pd.DataFrame) -> pd.DataFrame:
    starts = [f"loftq, {of}" if "loftq" in name.split("+") else "" for name, of in naming.keys(runs)]
    runs = runs.assign(start=pd.Series(starts, runs.index, dtype=object))
    return language_runs.with_setting(runs, runs["quantization"].where(runs["quantization"] != NONE, ""))


def read(study_dir: Path, schema: Schema, runs: pd.DataFrame) -> pd.DataFrame:
    """QUANTIZED_BASE or QUANTIZED_WEIGHTS: the rows of the bases that `runs` start from, one precision of each.

    Raises InputError if it is missing, is damaged, or lacks a base.
    """
    path, command = study_dir / schema.file, tables.make_command(study_dir)
    wanted = runs[KEYS].drop_duplicates()
    if schema is QUANTIZED_WEIGHTS:
        wanted = wanted[wanted["quantization"] != NONE]
    try:
        table = schema.read(path)
    except FileNotFoundError as error:
        raise InputError(f"{study_dir} has no {schema.file}; `{command}` measures it") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({reason}); delete it, `{command}` measures anew") from error
    found = wanted.merge(table.groupby(KEYS)["precision"].first().reset_index(), on=KEYS)
    if len(found) < len(wanted):
        raise InputError(f"{path} lacks {len(wanted) - len(found)} of {len(wanted)} bases; `{command}` measures them")
    return found.merge(table, on=[*KEYS, "precision"])


def weights(data: Data) -> pd.DataFrame:
    """The errors of single weights."""
    return read(data.folder, QUANTIZED_WEIGHTS, data.scores)


def bases(data: Data) -> pd.DataFrame:
    """A row for each of KEYS: bits a weight and bytes of the quantised layers, bytes of the model, error, the mean of
    the weights' relative errors (0 without quantisation), and a column loss_<text> or hidden_error_<text> each."""
    measured = read(data.folder, QUANTIZED_BASE, data.scores)
    names = measured["measure"] + "_" + measured["on"]
    wide = measured.assign(name=names).pivot_table("value", KEYS, "name", sort=False).reset_index()
    wide = wide.rename(columns={"bits_layers": "bits", "bytes_layers": "layer_bytes", "bytes_model": "model_bytes"})
    wide = wide.merge(data.once(weights).groupby(KEYS)["error"].mean().reset_index(), on=KEYS, how="left")
    return _ordered(wide.assign(error=wide["error"].where(wide["quantization"] != NONE, 0.0)))


def errors_by_type(weights: pd.DataFrame) -> pd.DataFrame:
    """Mean relative error over the weights of each type: a row for each of KEYS, a column a type, in order."""
    order = list(dict.fromkeys(weights["weight_type"]))
    return _ordered(weights.pivot_table("error", KEYS, "weight_type", sort=False)[order].reset_index())


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    place = rows["quantization"].map(QUANTIZATIONS.index)
    return rows.assign(place=place).sort_values(["model", "place", "start"], ignore_index=True).drop(columns="place")


def name(row: Mapping[Any, Any]) -> str:
    """A row of the tables: its quantisation, and LoftQ's start if it has that."""
    kind = {NONE: "not quantised"}.get(row["quantization"], row["quantization"])
    return f"{kind}, LoftQ" if row["start"] else kind


def untrained(data: Data) -> pd.DataFrame:
    """A row for each base of a model: its size, the error of its weights, and what it does on held-out text."""
    base = data["bases.csv"].dropna(axis="columns", how="all")
    columns: dict[str, Any] = {
        "base weights": _starts(base),
        "bits": base["bits"].map("{:.2f}".format),
        "these layers (MB)": megabytes(base["layer_bytes"]),
        "model (MB)": megabytes(base["model_bytes"]),
        "error of weights": base["error"].map("{:.3f}".format),
    }
    for column in map(str, base.filter(regex="^loss_")):
        columns[f"perplexity, {column.removeprefix('loss_')}"] = np.exp(base[column]).map("{:,.1f}".format)
    for column in map(str, base.filter(regex="^hidden_error_")):
        texts = base[column].map("{:.3f}".format, na_action="ignore")
        columns[f"hidden error, {column.removeprefix('hidden_error_')}"] = texts
    return pd.DataFrame(columns)


def by_type(data: Data) -> str:
    """The errors of a model's weights by type, with a line above."""
    table = tables.markdown(typed(errors_by_type(data.once(weights))))
    return f"Error of the weights of {data.place['model']} by type:\n\n{table}"


def typed(errors: pd.DataFrame) -> pd.DataFrame:
    """The errors of a model's weights by type, as text."""
    types = errors.drop(columns=KEYS).dropna(axis="columns", how="all")
    return pd.DataFrame({"base weights": _starts(errors)} | {one: types[one].map("{:.3f}".format) for one in types})


def _starts(rows: pd.DataFrame) -> list[str]:
    return [f"{row['quantization']}, {row['start']}" if row["start"] else name(row) for row in rows.to_dict("records")]


def megabytes(values: pd.Series) -> pd.Series:
    """Bytes as text; none where they are not known."""
    return (values / 1e6).map("{:,.1f}".format).where(values.notna())
