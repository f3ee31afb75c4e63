"""From stored runs to tidy tables: reading a study's runs, means with intervals, markdown, provenance."""

import datetime
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype
from scipy.special import stdtrit

from analysis.kit import collapses, naming
from analysis.kit.columns import RUNS
from experiments import places
from experiments.markdown import markdown as markdown  # cells on one line, for all that reads tables
from experiments.records.source import Run, Runs
from experiments.records.sweep import Sweep as Sweep  # which runs a study has, for all that reads tables
from experiments.records.sweep import make_command as make_command
from experiments.records.sweep import read_sweep as read_sweep
from lora.config import InputError

RUNS_COLUMNS = RUNS.names
ABOUT = ("precision", "collapsed", "protocol")  # what a run says of itself, if it does
FIRST = {"desk": 1, "desk1": 1}  # by preset, the protocol of runs of before they said which
FAILED_COLUMNS = ["run_id", "model", "task", "label", "settings", "lr", "seed"]
OVERRIDE = re.compile(r"(\S+?)=(.*?)(?=\s+[\w./]+=|$)")  # a field of a Hydra override, and its value
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "seaborn",
    "hydra-core",
)


def load_runs(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """One row a (run, split, metric) with the columns RUNS_COLUMNS, `main`, true for the task's main metric, `watched`,
    for what a learning rate is chosen by, and `test_rows`, `precision`, `collapsed` and `protocol`.

    Metrics are fractions as stored. test_rows: how many the run's test split had, None where it does not say;
    precision: the weights' as the run loaded them; collapsed: of `kit.collapses`; protocol: by which it was trained
    (docs/evidence.md). Runs of before these were noted do not say them, and are of protocol 1 if they are desk's.
    role: study, tuning (of the learning-rate grid), floor (a head alone, which rates must beat), or several, as in
    study+tuning. method is the config's name for it, label and
    settings tell apart what it leaves together, as `kit.naming` says. Raises InputError as `read_sweep`, and if a
    listed run is neither in `runs_dir` nor recorded, or is damaged.
    """
    runs, study = Runs(study_dir, runs_dir), places.study_of(study_dir)
    found = list(runs)
    shares = collapses.shares(found)
    rows: list[dict[str, Any]] = []
    for run in found:
        role = "+".join(sorted(runs.sweep.roles[run.run_id]))
        shared: dict[str, Any] = {"run_id": run.run_id, "study": study, "role": role}
        if "protocol" not in run.metrics:
            shared["protocol"] = FIRST.get(study_dir.parent.name)
        rows += [row | shared for row in run.read(partial(_read_run, run, shares))]
    return pd.DataFrame(rows, columns=[*RUNS_COLUMNS, "main", "watched", "test_rows", *ABOUT])


def _read_run(run: Run, shares: Mapping[str, float]) -> list[dict[str, Any]]:
    config, metrics = run.config, run.metrics
    method = config["method"]
    shared = {
        **_identity(config),
        "method": method["name"],
        **{name: method.get(name) for name in ("weight_types", "r", "alpha")},
        **{name: metrics[name] for name in ("trainable_params", "train_seconds", "tokens_per_second")},
        "peak_memory_bytes": metrics["peak_memory_bytes"],
        **{name: metrics.get(name) for name in ABOUT},
        "collapsed": collapses.of(run, shares),
    }
    watched = metrics.get("validation_metric", metrics["main_metric"])
    return [
        shared
        | {name: entry[name] for name in ("split", "metric", "value")}
        | {"main": entry["metric"] == metrics["main_metric"], "watched": entry["metric"] == watched}
        | {"test_rows": metrics.get("test_examples")}
        for entry in metrics["metrics"]
    ]


def with_details(
    runs: pd.DataFrame, study_dir: Path, runs_dir: Path, columns: Mapping[str, Callable[[Run], Any]]
) -> pd.DataFrame:
    """runs with further columns, each a value of a run's config or metrics by its function. Raises InputError if a run
    is damaged, or lacks what a function asks of it."""
    rows = [
        {"run_id": run.run_id} | {name: run.read(partial(of, run)) for name, of in columns.items()}
        for run in Runs(study_dir, runs_dir)
    ]
    return runs.merge(pd.DataFrame(rows, columns=["run_id", *columns]), on="run_id", how="left")


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": config["model"]["name"],
        "task": config["task"]["name"],
        "label": naming.label(config["method"]),
        "settings": naming.settings(config["method"]),
        # YAML 1.1 reads 5e-4, which has no dot, as a string.
        "lr": float(config["training"]["lr"]),
        "head_lr": float(config["training"].get("head_lr") or "nan"),
        "seed": int(config["seed"]),
    }


def load_failed(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """What the study's failed runs were, as far as the runner has kept it (<run_id>.failed): FAILED_COLUMNS.

    Of a run that is not here, its line in the report, by `failure_lines`, is all that is known. Raises InputError as
    `read_sweep`.
    """
    runs = Runs(study_dir, runs_dir)
    rows = []
    for run_id, _ in runs.sweep.failed:
        run = runs.failed(run_id)
        if run:
            rows.append({"run_id": run_id} | run.read(partial(_identity, run.config)))
    return pd.DataFrame(rows, columns=FAILED_COLUMNS).astype({"lr": float})


def in_role(runs: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows of runs that have `role`, alone or beside another. Their r are whole numbers if all of them have one:
    beside runs without, as those of a head alone, pandas keeps 8 as 8.0."""
    found = runs[runs["role"].str.split("+").map(lambda roles: role in roles)]
    return found.astype({"r": int}) if is_float_dtype(found["r"]) and found["r"].notna().all() else found


def head_rate(runs: pd.DataFrame) -> str:
    """A sentence on the head's learning rate in `runs`: lr, or one of its own. Runs of head_only tune it."""
    rates = runs.loc[runs["method"] != "head_only", "head_lr"].drop_duplicates().sort_values()
    if rates.isna().all():
        return "The head learns at the same rate as the rest."
    if len(rates) == 1:
        return f"The head has one learning rate in all runs, {rates.iloc[0]:g}, unless it is trained alone."
    names = ["the rate of the rest" if pd.isna(rate) else f"{rate:g}" for rate in rates]
    return f"The head does not have one learning rate in all runs, but {' or '.join(names)}."


def check_seeds(runs: pd.DataFrame, by: Sequence[str], study_dir: Path) -> None:
    """Raises InputError if a group of `by` holds a seed twice: runs of other settings would pass for further seeds."""
    twice = runs[runs.duplicated([*by, "seed"], keep=False)]
    if not twice.empty:
        cell = ", ".join(f"{name} {twice.iloc[0][name]}" for name in [*by, "seed"])
        raise InputError(
            f"{study_dir / 'sweep.jsonl'} lists runs of the same seed with different settings ({cell}: "
            f"{', '.join(twice['run_id'].unique()[:2])}); delete it, `{make_command(study_dir)}` lists one set of runs"
        )


def summarise(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean of `value` over each group, `interval`, the half-width of its 95% Student-t interval, and n, without NaN.

    One value has no interval: NaN. Groups come in order of appearance.
    """
    groups = runs.groupby(list(by), sort=False, dropna=False)["value"]
    table = groups.agg(mean="mean", interval="std", n="count").reset_index()
    table["interval"] *= stdtrit(table["n"] - 1, 0.975) / np.sqrt(table["n"])
    return table


def without_head(runs: pd.DataFrame) -> pd.Series:
    """Trainable parameters without the task's head, a number a row: less what `head_only` trains on the same model and
    task. NaN where the study has no run of head_only."""
    alone = runs[runs["label"] == "head_only"].groupby(["model", "task"])["trainable_params"].first()
    heads = runs[["model", "task"]].merge(alone.rename("head").reset_index(), on=["model", "task"], how="left")["head"]
    return runs["trainable_params"] - heads.set_axis(runs.index)


def failure_lines(failed: Sequence[tuple[str, str]], known: pd.DataFrame | None = None) -> list[str]:
    """Markdown list items for the runs that failed, so that no report leaves them out. Runs that could not begin and
    fail alike are one item, with method, tasks and seeds. known, of `load_failed`, tells what the others were."""
    alike: dict[tuple[str, str], list[dict[str, str]]] = {}
    names = {
        run["run_id"]: f" ({naming.title(run['label'], run['settings'])} on {run['task']}, "
        f"lr {run['lr']:g}, seed {run['seed']})"
        for run in ([] if known is None else known.to_dict("records"))
    }
    others = []
    for run_id, error in failed:
        fields = dict(OVERRIDE.findall(run_id))  # a run that could not begin is listed by its overrides
        text = " ".join(error.split())
        if "method" in fields:
            settings = [f"{key[7:]}={value}" for key, value in fields.items() if key.startswith("method.")]
            alike.setdefault((naming.title(fields["method"], ", ".join(settings)), text), []).append(fields)
        else:
            others.append(f"- Run `{run_id}`{names.get(run_id, '')} failed and is not in the results: {text}")
    lines = []
    for (name, text), runs in alike.items():
        tasks, seeds = (", ".join(dict.fromkeys(run[key] for run in runs if key in run)) for key in ("task", "seed"))
        where = f" on {tasks}" if tasks else ""
        where += f" (seed{'s' if ',' in seeds else ''} {seeds})" if seeds else ""
        lines.append(f"- **{name}**{where} is not in the results: {text}.")
    return lines + others


def provenance(runs: Iterable[Run]) -> dict[str, Any]:
    """Package versions, machine, command, date and commit of this analysis, and of the trainings it is made from."""
    trainings: list[dict[str, Any]] = []
    for run in runs:
        record = {name: run.metrics.get(name) for name in ("machine", "versions", "precision")}
        if record not in trainings:
            trainings.append(record)
    return {
        # Relative: results are published, and where a checkout lies is nobody's business.
        "command": shlex.join(os.path.relpath(part) if os.path.isabs(part) else part for part in sys.orig_argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()},
        "trainings": trainings,
    }


def _commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
