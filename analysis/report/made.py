"""How a study was made, from its provenance.json, runs.csv and the settings of its measurement."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

MEASURED = ("settings.json", "machine.json")  # what a measurement without runs says of itself
MANY = 6  # values of a setting that are listed one by one
TEXT = ["run_id", "model", "task", "method", "label", "settings", "weight_types", "r"]
Facts = list[tuple[str, str]]


@dataclass
class Made:
    """facts: names and values, to be listed; outputs: file names in the order in which the study wrote them; problems:
    a line for each file that is damaged."""

    facts: Facts = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    date: str = ""
    outputs: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(folder: Path, command: str) -> Made:
    """What is known of how the study in `folder` was made; command: what makes it."""
    made = Made([("command", command)])
    readers: dict[str, Callable[[Path, Made], None]] = {
        "runs.csv": _runs, **dict.fromkeys(MEASURED, _settings), "provenance.json": _provenance,
    }  # fmt: skip
    for name, reader in readers.items():
        if not (folder / name).is_file():
            continue
        try:
            reader(folder / name, made)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            made.problems.append(f"{name} is damaged ({why}); `{command}` writes it again")
    return made


def _runs(path: Path, made: Made) -> None:
    runs = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), low_memory=False).drop_duplicates("run_id")
    final = runs[runs["role"].str.contains("study")]
    tuning = len(runs) - len(final)
    facts = [("runs", f"{len(final)}" + (f", and {tuning} more to choose learning rates" if tuning else ""))]
    method = "label" if "label" in runs else "method"
    for name, column in (("models", "model"), ("tasks", "task"), ("methods", method), ("weight types", "weight_types")):
        facts.append((name, ", ".join(runs[column].dropna().unique())))
    facts += [("ranks r", _span(runs["r"])), ("learning rates", _span(runs["lr"])), ("seeds", _span(final["seed"]))]
    facts.append(("training time", f"{runs['train_seconds'].sum() / 3600:.1f} hours in all"))
    made.run_ids += runs["run_id"].tolist()
    made.facts += [(name, value) for name, value in facts if value]


def _span(values: pd.Series) -> str:
    """The values in words: each of a few, else the smallest, the largest and how many."""
    numbers = sorted(pd.to_numeric(values, errors="coerce").dropna().unique())
    if len(numbers) > MANY:
        return f"{numbers[0]:g} to {numbers[-1]:g}, {len(numbers)} values"
    return ", ".join(f"{number:g}" for number in numbers)


def _settings(path: Path, made: Made) -> None:
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        values = value if isinstance(value, list) else [value]
        if values and all(isinstance(item, str | int | float) for item in values):
            made.facts.append((name.replace("_", " "), ", ".join(map(str, values))))


def _provenance(path: Path, made: Made) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    machine = record["machine"]
    facts = [("analysed by", record["command"]), ("date", record["date"]), ("commit", record["commit"] or "not known")]
    facts += [("machine of the analysis", f"{machine['system']}, {machine['cpus']} CPUs")]
    facts += [("versions", _versions(record["versions"]))]
    facts += [("trained with", _training(training)) for training in record["trainings"]]
    made.date, made.outputs = record["date"], list(record.get("outputs", []))
    made.facts += facts


def _training(record: Mapping[str, Any]) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in (record["machine"] or {}).items() if value)
    return f"{record['precision']}; {machine}; {_versions(record['versions'] or {})}"


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
