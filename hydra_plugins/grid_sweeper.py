"""The sweeper of products of values. Hydra looks for its plugins in this package."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from hydra_plugins.sweep_launcher import SweepLauncher


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper composes each job from all its files to check it, before the launcher does it again: a fifth
    of a second a job, a minute for a grid of hundreds. Here the launcher composes each job once, for both."""

    launcher: SweepLauncher

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raises HydraException if a job's overrides do not fit together."""
        for overrides in batch:
            self.launcher.composed(overrides)
