"""Where an update or a weight is: its layer and its weight type."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Site(NamedTuple):
    """Where an update is: its layer, counted from 0 (a module path where layers do not tell), and its weight type."""

    layer: str
    weight_type: str


class Placed(Protocol):
    """Anything that is at a module."""

    @property
    def module(self) -> str: ...  # noqa: D102
    @property
    def layer(self) -> int | None: ...  # noqa: D102
    @property
    def weight_type(self) -> str: ...  # noqa: D102


def sites_of(targets: Sequence[Placed]) -> list[Site]:
    """A site for each target: by its layer or, where two share one (an encoder and a decoder), by its path."""
    labels: list[Callable[[Placed], str]] = [
        lambda target: str(target.layer),
        lambda target: target.module.rpartition(".")[0],
        lambda target: target.module,
    ]
    for label in labels:
        sites = [Site(label(target), target.weight_type) for target in targets]
        if len(set(sites)) == len(sites):
            break
    return sites
