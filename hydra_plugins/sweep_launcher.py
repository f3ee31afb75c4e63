"""The launcher of all grids: composes their jobs and gives them to `experiments.sweep`, on the engine of the config."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


class SweepLauncher(Launcher):
    """Hydra's own launcher composes each job from all its files, a fifth of a second a job. Here the choice of files,
    which is the same in many jobs, is composed once, and the fields that differ are set on copies of it, as Hydra does.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.loader, self.config = hydra_context.config_loader, config
        self.chosen: dict[tuple[str, ...], DictConfig] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do the jobs of a batch; their failures are in the sweep's list and exit code, not here."""
        from experiments import checks, commands, places  # later: Hydra imports its plugins before it is set up
        from experiments.sweep import Entry

        configs = [self.composed(list(overrides)) for overrides in job_overrides]
        places.set_study_dir(configs, list(self.config.hydra.overrides.task))
        names = checks.short_names(job_overrides)
        commands.do([Entry(name, config) for name, config in zip(names, configs, strict=True)])
        made = [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]
        for job in made:
            job.return_value = None
        return made

    def composed(self, overrides: list[str]) -> DictConfig:
        """The config of one job."""
        parsed = OverridesParser.create().parse_overrides(overrides)
        groups = [override for override in parsed if self._is_group(override.key_or_group)]
        key = tuple(str(override.input_line) for override in groups)
        if key not in self.chosen:
            config = self.loader.load_sweep_config(self.config, list(key))
            with open_dict(config):
                del config["hydra"]
            self.chosen[key] = config
        config = copy.deepcopy(self.chosen[key])
        OmegaConf.set_struct(config, True)
        ConfigLoaderImpl._apply_overrides_to_config([one for one in parsed if one not in groups], config)
        return config

    def _is_group(self, name: str) -> bool:
        repository = self.loader.repository  # type: ignore[attr-defined]
        return bool(repository.group_exists(name.partition("@")[0]))
