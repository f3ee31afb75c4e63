"""Grids of runs that are no product of values. Hydra looks for its plugins in this package."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException


class PointSweeper(BasicSweeper):
    """Runs every point for every combination of `params`; a point is some overrides: `method=lora method.r=4`.

    Hydra resolves `${key}` in a point once, before the sweep; `@{key}` is resolved in each job, by its own config.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None, points: list[str]) -> None:
        super().__init__(max_batch_size, params)
        self.points = [point.replace("@{", "${") for point in points]

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Jobs, each a list of overrides, in batches. What the user gives comes last, and so wins over a point."""
        product = BasicSweeper.split_arguments(overrides, max_batch_size)
        return [[[*point.split(), *job] for job in batch for point in self.points] for batch in product]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raises HydraException, with advice, if a job's overrides do not fit together."""
        try:
            super().validate_batch_is_legal(batch)
        except HydraException as error:
            advice = """choose the study's points instead: 'hydra.sweeper.points=["method=lora method.r=2"]'"""
            reason = str(error).partition("To append")[0]
            raise HydraException(f"{reason.strip()} It must fit every point of the study; {advice}") from error
