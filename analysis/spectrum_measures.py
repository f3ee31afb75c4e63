"""What the spectrum study measures of the updates that started from one model: spectra, ranks, intruders, overlaps."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import spectrum
from analysis.comparison import Site
from analysis.subspace import Baseline, phi, random_baseline
from analysis.svd import SVD, Array
from analysis.update_runs import ABOUT, PLACE, Trained, trained_svd

ENERGIES = (50, 90, 99)  # percent of the squared norm
EPSILONS = (0.4, 0.5, 0.6)
TOP = 10  # singular vectors of W + delta_w that are looked at for intruders
FEW = 8  # directions by which an update is compared with another, or all where there are fewer
SIDES = ("right", "left")
METHOD = [*PLACE, "label", "settings", "r"]


class Measures(NamedTuple):
    """Tidy frames, and spectra: S / S[0] of every run and site, by METHOD, seed and site."""

    ranks: pd.DataFrame  # a row a run and site
    angles: pd.DataFrame  # a row a pair of seeds, site and side
    overlap: pd.DataFrame  # a row a run beside one of full fine-tuning, site, side and k
    spectra: dict[tuple[Any, ...], Array]


class _Measured(NamedTuple):
    """A run's update at one site: the top directions on either side."""

    about: dict[str, Any]
    directions: dict[str, Array]


def measure(groups: list[Trained]) -> Measures:
    """All of them for every group. Raises InputError if an update is zero."""
    ranks: list[dict[str, Any]] = []
    angles: list[dict[str, Any]] = []
    overlap: list[dict[str, Any]] = []
    spectra: dict[tuple[Any, ...], Array] = {}
    for group in groups:
        for site in group.sites:
            W = group.matrix(site)
            of_w = SVD(*np.linalg.svd(W, full_matrices=False))
            at = site._asdict()
            measured = []
            for about, update in group.at(site):
                svd = _without_zeros(trained_svd(about, update))
                ranks.append(about | at | _ranks(svd, W) | _intruders(W, of_w, svd))
                spectra[(*(about[name] for name in METHOD), about["seed"], site)] = svd.S / svd.S[0]
                measured.append(_Measured(about, {"right": svd.Vh[:FEW].T, "left": svd.U[:, :FEW]}))
            angles += [row | at for row in _angles(measured)]
            overlap += [row | at for row in _overlap(measured)]
    return Measures(
        pd.DataFrame(ranks), pd.DataFrame(angles, columns=ANGLES), pd.DataFrame(overlap, columns=OVERLAP), spectra
    )


def _without_zeros(svd: SVD) -> SVD:
    """The triplets whose singular values are more than rounding."""
    floor = svd.S[0] * max(len(svd.U), svd.Vh.shape[1]) * np.finfo(np.float64).eps
    n = int(np.count_nonzero(floor < svd.S))
    return SVD(svd.U[:, :n], svd.S[:n], svd.Vh[:n])


def _ranks(svd: SVD, W: Array) -> dict[str, float]:
    found = {"norm_w": float(np.linalg.norm(W)), "norm_delta_w": float(np.linalg.norm(svd.S))}
    found |= {"stable_rank": spectrum.stable_rank(svd.S), "effective_rank": spectrum.effective_rank(svd.S)}
    return found | {f"rank_{share}": spectrum.energy_rank(svd.S, share / 100) for share in ENERGIES}


def _intruders(W: Array, of_w: SVD, svd: SVD) -> dict[str, int]:
    """How many of the TOP singular vectors of W + delta_w are intruders, by side and epsilon; and of W plus an update
    with the same singular values in random directions."""
    found: dict[str, int] = {}
    random = spectrum.random_turned(svd, np.random.default_rng(0))
    for name, update in (("intruders", svd), ("random", random)):
        left, right = spectrum.top_directions(W + (update.U * update.S) @ update.Vh, min(TOP, *W.shape))
        for side, directions, basis in (("right", right, of_w.Vh.T), ("left", left, of_w.U)):
            counts = spectrum.intruders(spectrum.best_matches(directions, basis), EPSILONS)
            found |= {f"{name}_{side}_{epsilon}": n for epsilon, n in zip(EPSILONS, counts, strict=True)}
    return found


ANGLES = [*METHOD, "seed", "other_seed", "layer", "weight_type", "side", "k", *spectrum.Angles._fields]
ANGLES += [f"chance_{name}" for name in spectrum.AnglesChance._fields]
OVERLAP = [*ABOUT, "other_run_id", "other_seed", "layer", "weight_type", "side", "k", "phi"]
OVERLAP += ["chance_mean", "chance_low", "chance_high"]


def _angles(measured: list[_Measured]) -> Iterator[dict[str, Any]]:
    """Every pair of seeds of one method."""
    for first, second in itertools.combinations(measured, 2):
        if any(first.about[name] != second.about[name] for name in METHOD if name != "r"):
            continue
        for side in SIDES:
            k = min(run.directions[side].shape[1] for run in (first, second))
            dim = first.directions[side].shape[0]
            found = spectrum.principal_angles(*(run.directions[side][:, :k] for run in (first, second)))
            chance = _random_angles(dim, k)._asdict()
            yield (
                {name: first.about[name] for name in METHOD}
                | {"seed": first.about["seed"], "other_seed": second.about["seed"], "side": side, "k": k}
                | found._asdict()
                | {f"chance_{name}": value for name, value in chance.items()}
            )


def _overlap(measured: list[_Measured]) -> Iterator[dict[str, Any]]:
    """phi(k, k) between each run and the full fine-tuning of the next seed (its own, if there is but one), for k = 1
    and FEW: also for full fine-tuning itself, which says how much two seeds of it share."""
    for run in measured:
        full = [
            other
            for other in measured
            if other.about["label"] == "full" and all(other.about[name] == run.about[name] for name in PLACE)
        ]
        others = [other for other in full if other.about["seed"] != run.about["seed"]]
        later = [other for other in others if other.about["seed"] > run.about["seed"]]
        mirrored = not later and len(others) < 2  # the pair has been, from its other end, or the run is alone
        if mirrored and run.about["label"] == "full":
            continue
        for other in (later or others or full)[:1]:
            for side in SIDES:
                grid = phi(other.directions[side], run.directions[side])
                size = min(grid.shape)
                chance = _random_phi(size, run.directions[side].shape[0])
                for k in sorted({1, size}):
                    at = k - 1, k - 1
                    yield (
                        run.about
                        | {"other_run_id": other.about["run_id"], "other_seed": other.about["seed"], "side": side}
                        | {"k": k, "phi": grid[at], "chance_mean": chance.mean[at]}
                        | {"chance_low": chance.low[at], "chance_high": chance.high[at]}
                    )


@functools.cache
def _random_angles(dim: int, k: int) -> spectrum.AnglesChance:
    return spectrum.random_angles(dim, k, k)


@functools.cache
def _random_phi(size: int, dim: int) -> Baseline:
    return random_baseline(size, size, dim)


def spectra_table(spectra: dict[tuple[Any, ...], Array]) -> pd.DataFrame:
    """spectra.csv: METHOD, layer, weight_type, index (1, 2, 4, … and the last) and value, S / S[0], the mean over
    seeds, of which there are n."""
    rows = []
    for key, values in spectra.items():
        *method, _, site = key
        assert isinstance(site, Site)
        size = len(values)
        for index in sorted({*(2**n for n in range(size.bit_length())), size}):
            if index <= size:
                rows.append((*method, *site, index, values[index - 1]))
    columns = [*METHOD, "layer", "weight_type", "index"]
    table = pd.DataFrame(rows, columns=[*columns, "value"])
    means = table.groupby(columns, sort=False, dropna=False)["value"].agg(value="mean", n="count")
    return means.reset_index()
