"""The directions of stored updates, on each side: what phi is between."""

from pathlib import Path

from analysis.kit.phi import SIDES
from analysis.maths.subspace import phi
from analysis.maths.svd import Array, right_singular_vectors, svd_delta_w
from analysis.weights.sites import Site, sites_of
from analysis.weights.update_runs import adapter
from lora import io
from lora.config import InputError

Directions = dict[tuple[str, Site], Array]


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


def compare(pair: tuple[str, str], study_dir: Path, runs_dir: Path) -> dict[tuple[str, Site], tuple[Array, int]]:
    """phi between the adapters of two runs at every side and site, and the dimension that it is of.

    Raises InputError as `directions`, and if the two do not adapt the same modules.
    """
    first, second = (directions(adapter(run_id, study_dir, runs_dir)) for run_id in pair)
    if {key: len(u) for key, u in first.items()} != {key: len(u) for key, u in second.items()}:
        raise InputError(
            f"{study_dir}: the runs {' and '.join(pair)} adapt different modules; train them with the same weight types"
        )
    return {key: (phi(u, second[key]), len(u)) for key, u in first.items()}
