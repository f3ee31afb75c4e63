"""The grid of a study, as its sweeper expands it, and the configs of its jobs, as the launcher composes them."""

import functools
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig

from hydra_plugins.sweep_launcher import SweepLauncher


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


def job_config(*overrides: str) -> DictConfig:
    """The config of a job with these overrides, the study among them. Not to be changed: all that ask get the same."""
    return _launcher().composed(overrides)


@functools.cache
def _launcher() -> SweepLauncher:
    launcher, outer = SweepLauncher(), GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()  # of the test that is the first to ask
    with initialize_config_module("experiments.conf", version_base="1.3"):
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        config = compose("config", return_hydra_config=True)
        launcher.setup(hydra_context=context, task_function=lambda _: None, config=config)
    GlobalHydra.instance().hydra = outer
    return launcher
