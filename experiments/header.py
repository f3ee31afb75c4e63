"""What a sweep says before it begins: its runs, what of them is stored, how long it may take, and what data they have.

How many rows a task has is known when a run has loaded it; it is kept beside the runs, so that from then on the header
says it at once.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import sample_size, tasks
from experiments.paths import write
from experiments.progress import report, span

if TYPE_CHECKING:
    from experiments.config import RunConfig
    from experiments.engines import Engine
    from experiments.jobs import Wanted

FACTS = ".tasks"  # in the folder of all runs: what is known of tasks, a JSON file each
LOOK = 0.3  # seconds until it is looked again whether the first run has loaded its data


def runs(name: str, total: int, stored: int, tuning: int) -> None:
    """Print what there is to do: runs in all as far as is known, those that are stored (or known to diverge), and those
    of a tuning to do."""
    of_tuning = f", {tuning} of them to choose learning rates" if tuning else ""
    report(f"{name}: {total} runs, {stored} stored, {total - stored} to do{of_tuning}")


def pace(engine: Engine, wanted: Sequence[Wanted], todo: int) -> None:
    """Print how many runs are computed at once and, where runs of these models and tasks are known, for how long."""
    parts = [f"{engine.slots} at once"]
    if engine.threads:
        parts.append(f"{engine.threads} thread{'s' if engine.threads > 1 else ''} each")
    known = [_facts(run.config).get("seconds", {}).get(run.config.model.name) for run in wanted]
    if wanted and all(known):
        parts.append(f"about {span(todo * sum(known) / len(known) / min(engine.slots, todo))}")
    report(", ".join(parts))


class Data:
    """Prints what data the runs have, a line a task, as soon as it is known. A context: at its end nothing more is
    printed."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.configs = {_place(run.config): run.config for run in wanted}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._tell()
        if self.configs:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()
        self._tell()

    def _watch(self) -> None:
        while self.configs and not self.over.wait(LOOK):
            self._tell()

    def _tell(self) -> None:
        for place, config in list(self.configs.items()):
            facts = _facts(config)
            if facts:
                del self.configs[place]
                name = tasks.resolve(config.task)["name"]
                report(line(name, facts))
                few = sample_size.warning(facts["test"], name)
                if few:
                    report(few)


def line(name: str, facts: Mapping[str, Any]) -> str:
    """The rows of a task's splits, and its classes."""
    rows = ", ".join(f"{facts[split]} {split}" for split in tasks.SPLITS)
    return f"{name}: rows {rows}" + (f"; {facts['classes']} classes" if facts["classes"] else "")


def note(config: RunConfig, data: Any) -> None:
    """Keep the sizes of a task's splits, for the next header. Nothing is lost where that cannot be written."""
    sizes = {split: len(getattr(data, split)) for split in tasks.SPLITS}
    classes = len(getattr(data, "label_names", ()) or getattr(data, "choices", ()))
    write(_place(config), json.dumps({**_facts(config), **sizes, "classes": classes}))


def note_seconds(config: RunConfig, seconds: float) -> None:
    """Keep how long a run took, from its data to its scores."""
    facts = _facts(config)
    known = {**facts.get("seconds", {}), config.model.name: round(seconds, 1)}
    write(_place(config), json.dumps({**facts, "seconds": known}))


def _place(config: RunConfig) -> Path:
    task = json.dumps(tasks.resolve(config.task), sort_keys=True)
    return Path(config.results_dir) / "runs" / FACTS / f"{hashlib.sha256(task.encode()).hexdigest()[:12]}.json"


def _facts(config: RunConfig) -> dict[str, Any]:
    try:
        facts = json.loads(_place(config).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) and "classes" in facts else {}
