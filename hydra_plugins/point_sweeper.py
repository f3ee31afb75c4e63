"""Grids of runs that are no product of values. Hydra looks for its plugins in this package."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hydra_plugins.grid_sweeper import GridSweeper

WHEN, UNLESS = "when:", "unless:"


class PointSweeper(GridSweeper):
    """Runs every point at every place for every combination of `params`. A point is some overrides, `method=lora
    method.r=4`, and so is a place: a model, a task and what they need, `model=smollm2 task=e2e training.epochs=1`.

    Of a point with several values, `method.r=1,4`, every combination is run. `when:model=a,b` in a point or a place
    leaves out the jobs whose model, as far as overrides say, is neither a nor b, `unless:model=a` those where it is a.
    Hydra resolves `${key}` in a point once, before the sweep; `@{key}` is resolved in each job, by its own config.
    """

    def __init__(
        self, max_batch_size: int | None, params: dict[str, str] | None, points: list[str], places: list[str]
    ) -> None:
        super().__init__(max_batch_size, params)
        self.points = [point.replace("@{", "${") for point in points]
        self.places = places

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Jobs, each a list of overrides, in batches. What the user gives comes last, and so wins over a point; a model
        or a task that the user gives takes the place of all places."""
        given = {override.key_or_group for override in overrides}
        places = [""] if given & {"model", "task"} else self.places
        product = BasicSweeper.split_arguments(overrides, max_batch_size)
        points = [chosen for point in self.points for chosen in itertools.product(*map(_values, point.split()))]
        return [
            [
                [part for part in chosen if not part.startswith((WHEN, UNLESS))]
                for job in batch
                for place in places
                for point in points
                if _fits(chosen := [*place.split(), *point, *job])
            ]
            for batch in product
        ]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Raises HydraException, with advice, if a job's overrides do not fit together."""
        try:
            super().validate_batch_is_legal(batch)
        except HydraException as error:
            advice = """choose the study's points instead: 'hydra.sweeper.points=["method=lora method.r=2"]'"""
            reason = str(error).partition("To append")[0]
            raise HydraException(f"{reason.strip()} It must fit every point of the study; {advice}") from error


def _values(part: str) -> list[str]:
    """The overrides that one with several values stands for; others stay as they are written."""
    if part.startswith((WHEN, UNLESS)):
        return [part]
    override = OverridesParser.create().parse_override(part)
    if not override.is_discrete_sweep():
        return [part]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _fits(job: Sequence[str]) -> bool:
    """True if what the overrides of a job say fits every condition among them; the last word on a key counts."""
    conditions = [part for part in job if part.startswith((WHEN, UNLESS))]
    said = {part.partition("=")[0]: part.partition("=")[2] for part in job if part not in conditions}
    for condition in conditions:
        key, _, values = condition.partition(":")[2].partition("=")
        if (said.get(key) in values.split(",")) != condition.startswith(WHEN):
            return False
    return True
