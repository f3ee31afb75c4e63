"""What the study of quantised base weights reads: its runs, each with its quantisation, and the measured bases."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import language_runs, naming, tables
from experiments.csv_schema import Schema
from experiments.measure.schemas import QUANTIZED_WEIGHTS
from experiments.records.source import Run, Runs
from lora.config import InputError

NONE = "none"  # in the column quantization: the base weights are in 16 or 32 bits
QUANTIZATIONS = (NONE, "int8", "nf4", "int2")
KEYS = ["model", "quantization", "start"]
MEMORY = "training_memory_bytes"


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The frame of `kit.tables.load_runs`, arranged, with quantization, start (LoftQ's, as quantized_base.csv
    names it; "" for others) and MEMORY (NaN for runs older than its measurement). Settings end with the quantisation.

    Raises InputError as `load_runs`.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    details: dict[str, Callable[[Run], Any]] = {
        "quantization": _quantization,
        MEMORY: lambda run: run.metrics.get(MEMORY),
    }
    return _named(tables.with_details(runs, study_dir, runs_dir, details).astype({MEMORY: float}))


def load_failed(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The frame of `kit.tables.load_failed`, with settings as in `load`. Raises InputError as that."""
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


def place(quantization: str) -> int:
    """Sort key: from many bits to few."""
    return QUANTIZATIONS.index(quantization)
