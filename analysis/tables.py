"""From stored runs to tidy tables: reading a study's runs, means with intervals, markdown, provenance."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from scipy.special import stdtrit

from analysis import naming
from lora.config import InputError

RUNS_COLUMNS = [
    "run_id", "study", "model", "task", "method", "weight_types", "r", "alpha", "lr", "seed", "trainable_params",
    "split", "metric", "value", "train_seconds", "tokens_per_second", "peak_memory_bytes", "role", "label", "settings",
    "head_lr",
]  # fmt: skip
FAILED_COLUMNS = ["run_id", "model", "task", "label", "settings", "lr", "seed"]
MAKE_TARGETS = {
    "rank_ablation": "ablate-rank", "subspace": "subspace-plots", "compare_methods": "compare-methods",
    "scaling": "scaling", "latency": "latency", "alpha": "alpha-study", "init": "init-study",
    "gradients": "gradient-check", "table3": "table3", "table4": "table4", "table8": "few-shot", "table13": "table13",
    "table14": "table14", "table15": "table15", "table16": "low-data", "rank_generation": "rank-generation",
    "rank_data": "rank-data",
    "weight_types": "weight-types",
    "forgetting": "forgetting", "amplification": "amplification", "w_vs_delta": "w-vs-delta", "spectrum": "spectrum",
    "truncation": "truncation",
    "memory": "memory", "qlora": "qlora", "memory_methods": "memory-methods",
}  # fmt: skip
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


_BAR, _BREAKS = re.compile(r"(?<!\\)\|"), re.compile(r"[\r\n\v\f\x85\u2028\u2029]+")


class Sweep(NamedTuple):
    """What sweep.jsonl says: roles by run_id, in order of appearance, and what failed: (run_id, error)."""

    roles: dict[str, set[str]]
    failed: list[tuple[str, str]]


def make_command(study_dir: Path) -> str:
    """The command that trains the runs of a study folder results/<preset>/<study>."""
    return f"make {MAKE_TARGETS.get(study_dir.name, study_dir.name)} PRESET={study_dir.parent.name}"


def read_sweep(study_dir: Path) -> Sweep:
    """Reads the list of runs that the runner left in `study_dir`; a run's latest line says whether it failed.

    Raises InputError if the list is missing, damaged, empty, or holds failed runs only.
    """
    path = study_dir / "sweep.jsonl"
    advice = f"`{make_command(study_dir)}` makes it"
    roles: dict[str, set[str]] = {}
    failed: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{study_dir} has no readable sweep.jsonl, the list of its runs; {advice}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            run_id, role = entry["run_id"], entry["role"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is damaged; delete the file, {advice} again") from error
        if "error" in entry:
            failed[run_id] = str(entry["error"])
        else:
            failed.pop(run_id, None)
            roles.setdefault(run_id, set()).add(role)
    for run_id in failed:
        roles.pop(run_id, None)
    if not roles:
        why = "; ".join(f"{run_id}: {error}" for run_id, error in failed.items()) or "the list is empty"
        raise InputError(f"{path} lists no finished run ({why}); {advice}")
    return Sweep(roles, list(failed.items()))


def load_runs(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """One row a (run, split, metric) with the columns RUNS_COLUMNS and `main`, true for the task's main metric.

    Metrics are fractions as stored. role: study, tuning (of the learning-rate grid), or study+tuning. method is the
    config's name for it, label and settings tell apart what it leaves together, as `analysis.naming` says.
    Raises InputError as `read_sweep`, and if a listed run is not in `runs_dir` or is damaged.
    """
    rows: list[dict[str, Any]] = []
    for run_id, roles in read_sweep(study_dir).roles.items():
        folder = runs_dir / run_id
        if not folder.is_dir():
            raise InputError(
                f"run {run_id} of {study_dir / 'sweep.jsonl'} is not in {runs_dir}; "
                f"`{make_command(study_dir)}` trains it"
            )
        try:
            shared = {"run_id": run_id, "study": study_dir.name, "role": "+".join(sorted(roles))}
            rows += [shared | row for row in _read_run(folder)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise InputError(
                f"run folder {folder} is damaged ({type(error).__name__}: {' '.join(str(error).split())}); "
                f"delete it, `{make_command(study_dir)}` trains it again"
            ) from error
    return pd.DataFrame(rows, columns=[*RUNS_COLUMNS, "main"])


def _read_run(folder: Path) -> list[dict[str, Any]]:
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    method = config["method"]
    run = {
        **_identity(config),
        "method": method["name"],
        **{name: method.get(name) for name in ("weight_types", "r", "alpha")},
        **{name: metrics[name] for name in ("trainable_params", "train_seconds", "tokens_per_second")},
        "peak_memory_bytes": metrics["peak_memory_bytes"],
    }
    return [
        run
        | {name: entry[name] for name in ("split", "metric", "value")}
        | {"main": entry["metric"] == metrics["main_metric"]}
        for entry in metrics["metrics"]
    ]


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

    Raises InputError as `read_sweep`.
    """
    rows = []
    for run_id, _ in read_sweep(study_dir).failed:
        try:
            config = yaml.safe_load((runs_dir / f"{run_id}.failed" / "config.yaml").read_text(encoding="utf-8"))
            rows.append({"run_id": run_id} | _identity(config))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            continue  # its line in the report, by `failure_lines`, is all that is known
    return pd.DataFrame(rows, columns=FAILED_COLUMNS).astype({"lr": float})


def in_role(runs: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows of runs that have `role`, alone or beside another."""
    return runs[runs["role"].str.split("+").map(lambda roles: role in roles)]


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
    """Mean of `value` over each group, `interval`, the half-width of its 95% Student-t interval, and n.

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


def markdown(table: pd.DataFrame) -> str:
    """A markdown table of the cells as they are, each on one line; cells that have no value are a dash."""
    shown = table.fillna("–").map(_one_cell).rename(columns=_one_cell)
    return str(shown.to_markdown(index=False, disable_numparse=True))


def _one_cell(cell: Any) -> Any:
    # A bar would end the cell, a line break the row.
    return _BREAKS.sub(" ", _BAR.sub(r"\\|", cell)) if isinstance(cell, str) else cell


def failure_lines(failed: Sequence[tuple[str, str]], known: pd.DataFrame | None = None) -> list[str]:
    """Markdown list items for the runs that failed, so that no report leaves them out.

    known, of `load_failed`, tells what they were.
    """
    names = {
        run["run_id"]: f" ({naming.title(run['label'], run['settings'])} on {run['task']}, "
        f"lr {run['lr']:g}, seed {run['seed']})"
        for run in ([] if known is None else known.to_dict("records"))
    }
    return [
        f"- Run `{run_id}`{names.get(run_id, '')} failed and is not in the results: {' '.join(error.split())}"
        for run_id, error in failed
    ]


def provenance(runs_dir: Path, run_ids: Sequence[str]) -> dict[str, Any]:
    """Package versions, machine, command, date and commit of this analysis, and of the trainings it is made from."""
    trainings: list[dict[str, Any]] = []
    for run_id in run_ids:
        metrics = json.loads((runs_dir / run_id / "metrics.json").read_text(encoding="utf-8"))
        record = {name: metrics.get(name) for name in ("machine", "versions", "precision")}
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
