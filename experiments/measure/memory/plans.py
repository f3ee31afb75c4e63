"""Plans, stored by what they are plans of: a setup that was planned once is read from setups.csv."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from experiments import method_names
from experiments.measure.memory.schemas import SETUPS
from experiments.measure.memory.setup import Plan, Setup
from experiments.measure.results import Results, make_folder
from experiments.paths import user_path

_NUMBERS = tuple(field.name for field in dataclasses.fields(Plan) if field.name != "notes")
_JOIN = " | "
PLANNER = 2  # to be raised when the same setup gets another plan
LIBRARIES = ("torch", "transformers", "bitsandbytes", "hqq")


def identity(setup: Setup) -> str:
    """First 12 hex digits of the SHA-256 of what a plan follows from: the setup, where a model folder counts by its
    config.json, the planner's version and those of the libraries whose steps it traces."""
    content = dataclasses.asdict(setup) | {"planner": PLANNER, "libraries": _libraries()}
    config = user_path(str(setup.model["path"])) / "config.json"
    if config.is_file():
        content["model"] = {**setup.model, "path": hashlib.sha256(config.read_bytes()).hexdigest()}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@cache
def _libraries() -> dict[str, str]:
    found = {name: importlib.util.find_spec(name) for name in LIBRARIES}
    return {name: version(name) for name, spec in found.items() if spec is not None}


def row(setup: Setup, plan: Plan) -> dict[str, Any]:
    """A row of setups.csv, as SETUPS has it; what is None in the setup is empty."""
    method = dict(setup.method)
    return {
        "setup": identity(setup),
        "model": setup.model["name"],
        "method": method_names.label(method),
        "settings": method_names.settings(method),
        "quantization": setup.model.get("quantization") or "",
        "precision": setup.precision,
        "batch": setup.batch,
        "length": setup.length,
        "targets": "" if setup.targets is None else str(setup.targets),
        "checkpointing": setup.checkpointing,
        "state_precision": setup.state_precision or "",
        "device": setup.device,
        **{name: getattr(plan, name) for name in _NUMBERS},
        "notes": _JOIN.join(plan.notes),
    }


class Plans:
    """Plans of setups, computed when they are not in `folder`/setups.csv, and stored there.

    Raises InputError if the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.results = Results(folder, SETUPS)
        self._made = tqdm(unit="plan", disable=None)
        self._known = {str(entry["setup"]): _plan(entry) for entry in self.results.rows.to_dict("records")}

    def __call__(self, setup: Setup) -> Plan:
        """The plan of a setup. Raises InputError as `experiments.measure.memory.planner.plan`."""
        key = identity(setup)
        if key not in self._known:
            from experiments.measure.memory.planner import plan  # torch: seconds that stored plans do not need

            self._known[key] = plan(setup)
            self.results.add([row(setup, self._known[key])])
            self._made.update()
        return self._known[key]


def _plan(entry: dict[Any, Any]) -> Plan:
    notes = tuple(note for note in str(entry["notes"]).split(_JOIN) if note)
    return Plan(**{name: int(entry[name]) for name in _NUMBERS}, notes=notes)
