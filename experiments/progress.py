"""What a sweep shows while it goes: one bar with an ETA over its runs, and one line a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm.auto import tqdm

SWEEP = "sweep.jsonl"  # in the study's folder: a line for every run of the last sweep
computed: list[str] = []  # run_ids of the runs that were not stored
failures: list[str] = []  # overrides of the runs that could not be done


def report(line: str) -> None:
    """Print a line above the bars."""
    tqdm.write(line, file=sys.stderr if line.startswith("error") else sys.stdout)


def sweep_size(config: DictConfig) -> int:
    """Number of runs in the grid of a multirun config: its sweeper's own expansion, counted."""
    settings = config.hydra.sweeper
    sweeper: Any = instantiate(settings) if "points" in settings else BasicSweeper
    grid = [f"{key}={value}" for key, value in (settings.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*grid, *config.hydra.overrides.task])
    return sum(len(batch) for batch in sweeper.split_arguments(overrides, None))


class SweepProgress(Callback):
    """Hydra callback: a bar over the runs of a multirun, and a fresh sweep.jsonl for them."""

    bar: tqdm[Any] | None = None
    listing = False

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Open the bar."""
        self.bar = tqdm(
            total=sweep_size(config), desc=config.study.name or "sweep", unit="run", smoothing=0, disable=None
        )

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Start the study's list of runs at the first: a command that Hydra rejects leaves the last list as it is."""
        if config.study.name and not self.listing:
            folder = Path(config.study_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SWEEP).write_text("")
            self.listing = True

    def on_job_end(self, config: DictConfig, job_return: Any, **_: Any) -> None:
        """One run more."""
        if self.bar is not None:
            self.bar.initial = self.bar.n + 1 - len(computed)  # runs that were stored say nothing of the time to come
            self.bar.update()

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
