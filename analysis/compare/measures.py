"""What is measured on adapters side by side: each update by itself, and each two updates of the same module."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from analysis.maths.amplification import DENSE, amplification, expected_projection, projection_norm
from analysis.maths.spectrum import effective_rank, stable_rank
from analysis.maths.subspace import Baseline, gaussian_baseline, phi
from analysis.maths.svd import Array
from analysis.weights.delta_w import Difference, LowRank, Update, inner
from analysis.weights.module_names import canonical
from analysis.weights.pretrained import Weights
from analysis.weights.updates import Updates
from lora.config import WEIGHT_TYPES, InputError

SAME_NORM = 0.01  # how far, relatively, ||W||_F of one base model may be off after rounding
SIDES = ("right", "left")  # singular vectors of delta_w: directions of its input, directions of its output


class Module(NamedTuple):
    """One weight type of one module, and the adapters, by their index, that change it."""

    name: str
    layer: str
    weight_type: str
    shape: tuple[int, int]
    updates: dict[int, Update]


class Spectrum(NamedTuple):
    """||delta_w||_F, the singular values, as many as were computed, and top singular vectors: U (d, n), V (k, n)."""

    norm: float
    S: Array
    U: Array
    V: Array


class Measured(NamedTuple):
    """What was measured on one module.

    rows   a dict for each adapter (columns of modules.csv)
    pairs  a dict for each two adapters, side and (i, i) (columns of pairs.csv)
    grids  (first, second, side) -> phi for all i and j
    """

    module: Module
    rows: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    spectra: dict[int, Array]
    grids: dict[tuple[int, int, str], Array]


def match(adapters: Sequence[Updates]) -> list[Module]:
    """The modules of all adapters, layer by layer. Two are the same if weight type and shape are, and the module's name
    is, but for what a head or a multimodal model puts before it."""
    found: list[Module] = []
    alike: dict[tuple[Any, ...], list[Module]] = {}
    for index, adapter in enumerate(adapters):
        for site, update in adapter.items():
            same = alike.setdefault((canonical(update.module), site.weight_type, update.shape), [])
            module = next((m for m in same if index not in m.updates), None)
            if module is None:
                layer = "–" if site.layer == str(None) else site.layer
                module = Module(update.module, layer, site.weight_type, update.shape, {})
                same.append(module)
                found.append(module)
            module.updates[index] = update
    return sorted(found, key=_order)


def _order(module: Module) -> tuple[Any, ...]:
    types = WEIGHT_TYPES.index(module.weight_type) if module.weight_type in WEIGHT_TYPES else len(WEIGHT_TYPES)
    numbers = [int(number) for number in re.findall(r"\d+", module.layer)]
    return not numbers, re.sub(r"\d+", "", module.layer), numbers, types, module.weight_type, module.name


def measure(module: Module, names: Sequence[str], top: int, base: Weights | None) -> Measured:
    """All measures of one module; its matrices are the only ones in memory. `top`: how many directions of a side are
    compared; `base`: where W is read.

    Raises InputError if a file is damaged, or `base` is not the model that an adapter was trained on.
    """
    spectra = {index: _spectrum(update, top) for index, update in module.updates.items()}
    update = next(iter(module.updates.values()))
    W = base.matrix(update.module, update.weight_type).double().numpy() if base and base.has(module.name) else None
    rows = [
        _about(module, names[index]) | _alone(update, spectra[index], W, names[index])
        for index, update in module.updates.items()
    ]
    pairs: list[dict[str, Any]] = []
    grids: dict[tuple[int, int, str], Array] = {}
    for one, two in combinations(module.updates, 2):
        first, second = spectra[one], spectra[two]
        norms = first.norm * second.norm
        about = _about(module, names[one], names[two]) | {
            "cosine": inner(module.updates[one], module.updates[two]) / norms if norms else float("nan"),
            "cosine_chance": cosine_chance(module.shape),
        }
        for side in SIDES if norms else ():
            u_a, u_b = (found.V if side == "right" else found.U for found in (first, second))
            grid = grids[one, two, side] = phi(u_a, u_b)
            chance = baseline(*grid.shape, len(u_a))
            for i in sorted({1, min(grid.shape)}):
                at = i - 1, i - 1
                pairs.append(about | {"side": side, "i": i, "j": i, "phi": grid[at], "chance": chance.mean[at],
                                      "chance_low": chance.low[at], "chance_high": chance.high[at],
                                      "above_chance": bool(grid[at] > chance.high[at])})  # fmt: skip
    return Measured(module, rows, pairs, {index: found.S for index, found in spectra.items()}, grids)


@functools.cache
def baseline(r_a: int, r_b: int, dim: int) -> Baseline:
    """`gaussian_baseline`, computed once."""
    return gaussian_baseline(r_a, r_b, dim)


def cosine_chance(shape: tuple[int, int]) -> float:
    """The standard deviation of <D, D'> / (||D||_F ||D'||_F) between updates (d, k) turned at random: 1 / sqrt(d k),
    whatever their singular values are. The mean is 0."""
    return float(1 / np.sqrt(shape[0] * shape[1]))


def _spectrum(update: Update, top: int) -> Spectrum:
    """All singular values, but the largest of a large dense difference; directions as far as they are not zero."""
    U, values, Vh = update.svd(top if is_cut(update) else None)
    floor = values[0] * max(update.shape) * np.finfo(np.float64).eps
    n = min(top, int(np.count_nonzero(values > floor)))
    norm = update.norm() if is_cut(update) else float(np.linalg.norm(values))
    return Spectrum(norm, values, U[:, :n], Vh[:n].T)


def is_cut(update: Update) -> bool:
    """Whether a whole SVD would take too long: of a dense difference above DENSE."""
    return isinstance(update, Difference) and min(update.shape) > DENSE


def _about(module: Module, *names: str) -> dict[str, Any]:
    columns = ["adapter"] if len(names) == 1 else ["first", "second"]
    place = {"module": module.name, "layer": module.layer, "weight_type": module.weight_type}
    return dict(zip(columns, names, strict=True)) | place


def _alone(update: Update, found: Spectrum, W: Array | None, name: str) -> dict[str, Any]:
    (d, k), n, nan = update.shape, found.U.shape[1], float("nan")
    known = update.w_norm if isinstance(update, LowRank) else None
    norm_w = float(np.linalg.norm(W)) if W is not None else known or nan
    if known and abs(norm_w - known) > SAME_NORM * known:
        raise InputError(
            f"{name} was trained on another base model: there W of {update.module} has the norm {known:.4g}, here "
            f"{norm_w:.4g}"
        )
    row = {
        "d": d, "k": k, "r": update.rank, "scaling": update.scaling if isinstance(update, LowRank) else nan,
        "parameters": update.parameters, "norm_delta_w": found.norm, "norm_w": norm_w,
        "relative_norm": found.norm / norm_w, "largest_singular_value": found.S[0],
        "stable_rank": nan, "effective_rank": nan,
    }  # fmt: skip
    if found.norm:
        row["stable_rank"] = (found.norm / found.S[0]) ** 2 if is_cut(update) else stable_rank(found.S)
        row["effective_rank"] = nan if is_cut(update) else effective_rank(found.S)
    if W is not None and found.norm:
        projection = projection_norm(found.U, W, found.V)
        row |= {
            "directions": n, "projection_w": projection, "projection_random": expected_projection(norm_w, (d, k), n),
            "amplification": amplification(found.norm, projection),
        }  # fmt: skip
    return row
