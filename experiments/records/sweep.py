"""Which runs a study has: the list that its last sweep left here, otherwise that of its records."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

import yaml

from experiments import listing, places
from experiments.listing import SWEEP
from experiments.records import archive
from lora.config import InputError

STUDIES = Path(__file__).parents[2] / "analysis" / "studies"  # beside each a YAML, which says what target makes it


class Sweep(NamedTuple):
    """The runs of a study: roles by run_id, in order of appearance, and what failed: (run_id, error)."""

    roles: dict[str, set[str]]
    failed: list[tuple[str, str]]


def make_command(study_dir: Path) -> str:
    """The command that trains the runs of a study folder results/<preset>/<study>."""
    study = places.study_of(study_dir)
    own = f" with the MODEL and TASK of {study_dir.name}" if study != study_dir.name else ""
    return f"make {_target(study)} PRESET={study_dir.parent.name}{own}"


@functools.cache
def _target(study: str) -> str:
    """The make target of a study; of what is none, its name."""
    path = STUDIES / f"{study}.yaml"
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["make"]) if path.is_file() else study


def read_sweep(study_dir: Path) -> Sweep:
    """The runs of the study in `study_dir`, by sweep.jsonl or, where no sweep was made here, by records.jsonl.gz.

    Raises InputError if neither is there, or if the list is damaged, empty, or holds failed runs only.
    """
    path = study_dir / SWEEP
    listed = listed_here(study_dir)
    if listed is None:
        path = study_dir / archive.ARCHIVE
        listed = Sweep({}, [])
        for record in archive.read(path):
            if record.error is None:
                listed.roles[record.run_id] = set(record.roles)
            else:
                listed.failed.append((record.run_id, record.error))
    if not listed.roles:
        advice = f"`{make_command(study_dir)}` makes it"
        if not path.is_file():
            raise InputError(f"{study_dir} has no readable {SWEEP}, the list of its runs; {advice}")
        why = "; ".join(f"{run_id}: {error}" for run_id, error in listed.failed) or "the list is empty"
        raise InputError(f"{path} lists no finished run ({why}); {advice}")
    return listed


def listed_here(study_dir: Path) -> Sweep | None:
    """What sweep.jsonl lists, or None if there is none. A run's latest line says whether it failed.

    Raises InputError if the list is damaged.
    """
    path = study_dir / SWEEP
    if not listing.exists(study_dir):
        return None
    try:
        lines = listing.text(study_dir).splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it, `{make_command(study_dir)}` makes it") from error
    roles: dict[str, set[str]] = {}
    failed: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            run_id, role = entry["run_id"], entry["role"]
        except (ValueError, KeyError, TypeError) as error:
            advice = f"delete the file, `{make_command(study_dir)}` makes it again"
            raise InputError(f"{path}, line {number} is damaged; {advice}") from error
        if "error" in entry:
            failed[run_id] = str(entry["error"])
        else:
            failed.pop(run_id, None)
            roles.setdefault(run_id, set()).add(role)
    for run_id in failed:
        roles.pop(run_id, None)
    return Sweep(roles, list(failed.items()))
