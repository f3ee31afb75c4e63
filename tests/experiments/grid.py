"""The grid of a study, as its sweeper expands it."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig


def sweep_size(config: DictConfig) -> int:
    """Number of runs in the grid of a multirun config."""
    return len(jobs(config))


def jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each run in the grid of a multirun config, as its sweeper expands it."""
    settings = config.hydra.sweeper
    sweeper: Any = instantiate(settings) if "points" in settings else BasicSweeper
    grid = [f"{key}={value}" for key, value in (settings.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*grid, *config.hydra.overrides.task])
    return [job for batch in sweeper.split_arguments(overrides, None) for job in batch]
