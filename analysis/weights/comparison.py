"""phi between stored adapters: the directions of every update, site by site, and their grids beside the baseline's."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from analysis.maths.subspace import Baseline, phi
from analysis.maths.svd import Array, right_singular_vectors, svd_delta_w
from lora import io
from lora.config import InputError

SIDES = {
    "A": "right singular vectors of A",
    "delta_w_right": "right singular vectors of delta_w",
    "B": "left singular vectors of B",
    "delta_w_left": "left singular vectors of delta_w",
}


class Site(NamedTuple):
    """Where an update is: its layer, counted from 0 (a module path where layers do not tell), and its weight type."""

    layer: str
    weight_type: str


class Place(NamedTuple):
    """What a run is of: its model and its task."""

    model: str
    task: str

    def suffix(self, places: Collection["Place"]) -> str:
        """What a file's name ends with where a study is of several places: what tells this one from the others."""
        parts = [self.model] * (len({place.model for place in places}) > 1)
        parts += [self.task] * (len({place.task for place in places}) > 1)
        return "".join(f"_{part.replace('/', '_')}" for part in parts)


Directions = dict[tuple[str, Site], Array]


class Comparison(NamedTuple):
    """phi grids between two adapters, by side (a key of SIDES) and site, and the Gaussian baseline of each."""

    place: Place
    name: str  # as in file names: r8_r64, or seeds
    label: str  # the two sets of directions in the paper's notation, with a place for A or delta_w
    grids: dict[tuple[str, Site], Array]
    baselines: dict[tuple[str, Site], Baseline]

    @property
    def layers(self) -> list[str]:
        """Layers in the model's order."""
        return list(dict.fromkeys(site.layer for _, site in self.grids))

    @property
    def weight_types(self) -> list[str]:
        """Weight types in the model's order."""
        return list(dict.fromkeys(site.weight_type for _, site in self.grids))


def directions(adapter_dir: Path) -> Directions:
    """Singular vectors (dimension, r), as columns, of every update of an adapter, by side and site.

    Raises InputError if the adapter is missing or damaged, or if an update is zero and so has no directions.
    """
    adapter = io.read(adapter_dir)
    found: Directions = {}
    for target, site in zip(adapter.targets, sites_of(adapter.targets), strict=True):
        a, b = (matrix.numpy() for matrix in adapter.matrices(target))
        try:
            found |= {(side, site): u for side, u in sides(a, b).items()}
        except ValueError as error:
            raise InputError(f"{adapter_dir}: {target.module}, {target.weight_type}: {error}") from error
    return found


def sides(a: Array, b: Array) -> dict[str, Array]:
    """The directions (dimension, r), as columns, of every one of SIDES, of the update B A. Raises ValueError if it is
    zero, and so has none."""
    svd = svd_delta_w(a, b)
    if not svd.S[0] > 0:
        raise ValueError("the update is zero, it was not trained")
    right, left = right_singular_vectors(a), right_singular_vectors(b.T)
    return dict(zip(SIDES, (right, svd.Vh.T, left, svd.U), strict=True))


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


def compare(place: Place, name: str, first: Directions, second: Directions) -> dict[tuple[str, Site], Array]:
    """phi between two adapters at every side and site. Raises InputError if they do not adapt the same modules."""
    if {key: u.shape[0] for key, u in first.items()} != {key: u.shape[0] for key, u in second.items()}:
        raise InputError(
            f"{place.task}: the runs to compare ({name}) adapt different modules; train them with the same weight types"
        )
    return {key: phi(u, second[key]) for key, u in first.items()}
