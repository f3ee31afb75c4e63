"""What the spectrum study measures of the updates that started from one model: spectra, ranks, intruders, overlaps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.kit.updates import EPSILONS, FEW, PLACE, PRECISION, SIDES, TOP
from analysis.maths import spectrum
from analysis.maths.subspace import Baseline, phi, random_baseline
from analysis.maths.svd import SVD, Array
from analysis.studies.spectrum.schemas import ANGLES, ENERGIES, OVERLAP

if TYPE_CHECKING:  # which load torch
    from analysis.weights.update_runs import Trained

Pair = tuple[str, str]


def seed_pairs(each: pd.DataFrame) -> list[Pair]:
    """Every pair of seeds of one method, as run_ids. each: of `kit.updates.each`."""
    methods = each.groupby([*PLACE, "label", "settings", PRECISION], sort=False)["run_id"]
    return [pair for _, run_ids in methods for pair in itertools.combinations(run_ids, 2)]


def full_pairs(each: pd.DataFrame) -> list[Pair]:
    """Each run and the full fine-tuning of the next seed (its own, if there is but one), as run_ids: also for full
    fine-tuning itself, which says how much two seeds of it share."""
    pairs = []
    for _, runs in each.groupby([*PLACE, PRECISION], sort=False):
        full = runs[runs["label"] == "full"]
        for run_id, label, seed in runs[["run_id", "label", "seed"]].itertuples(index=False):
            others, later = full[full["seed"] != seed], full[full["seed"] > seed]
            mirrored = later.empty and len(others) < 2  # the pair has been, from its other end, or the run is alone
            if not (mirrored and label == "full"):
                chosen = next(part for part in (later, others, full) if len(part) or part is full)
                pairs += [(run_id, other) for other in chosen["run_id"][:1]]
    return pairs


def measure(groups: list[Trained], seeds: Collection[Pair], full: Collection[Pair]) -> list[pd.DataFrame]:
    """ranks, a row a run and site; spectra, a row an index of these (two an octave, and the last): S / S[0]; angles, a
    row a pair of seeds, site and side; overlap, a row a pair with full fine-tuning, site, side and k. Raises InputError
    if an update is zero."""
    ranks: list[dict[str, Any]] = []
    angles: list[dict[str, Any]] = []
    overlap: list[dict[str, Any]] = []
    spectra: list[dict[str, Any]] = []
    for group in groups:
        for site in group.sites:
            W = group.matrix(site)
            of_w = SVD(*np.linalg.svd(W, full_matrices=False))
            directions: dict[str, dict[str, Array]] = {}
            for about, _, whole in group.svds(site):
                run_id, svd = about["run_id"], _without_zeros(whole)
                at = {"run_id": run_id, **site._asdict()}
                ranks.append(at | _ranks(svd, W) | _intruders(W, of_w, svd))
                spectra += [at | row for row in _spectrum(svd.S)]
                directions[run_id] = {"right": svd.Vh[:FEW].T, "left": svd.U[:, :FEW]}
            for pairs, found, compare in ((seeds, angles, _angles), (full, overlap, _overlap)):
                for pair in pairs:
                    if all(run_id in directions for run_id in pair):
                        at = dict(zip(("run_id", "other_run_id"), pair, strict=True)) | site._asdict()
                        found += [at | row for row in compare(*(directions[run_id] for run_id in pair))]
    columns = (None, None, ANGLES.names, OVERLAP.names)
    frames = zip((ranks, spectra, angles, overlap), columns, strict=True)
    return [pd.DataFrame(rows, columns=names) for rows, names in frames]


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


def _spectrum(S: Array) -> Iterator[dict[str, Any]]:
    size = len(S)
    ends = {int(0.75 * size), int(0.9 * size), size}  # where the smallest of full fine-tuning's fall steeply
    for index in sorted({round(2 ** (n / 2)) for n in range(2 * size.bit_length())} | ends):
        if 1 <= index <= size:
            yield {"index": index, "value": S[index - 1] / S[0]}


def _angles(first: dict[str, Array], second: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """The principal angles of two runs' directions, side by side."""
    for side in SIDES:
        k = min(run[side].shape[1] for run in (first, second))
        found = spectrum.principal_angles(*(run[side][:, :k] for run in (first, second)))
        chance = _random_angles(len(first[side]), k)._asdict()
        yield {"side": side, "k": k} | found._asdict() | {f"chance_{name}": value for name, value in chance.items()}


def _overlap(run: dict[str, Array], full: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """phi(k, k) between two runs' directions, side by side, for k = 1 and FEW, or all that there are."""
    for side in SIDES:
        grid = phi(full[side], run[side])
        size = min(grid.shape)
        chance = _random_phi(size, len(run[side]))
        for k in sorted({1, size}):
            at = k - 1, k - 1
            yield (
                {"side": side, "k": k, "phi": grid[at], "chance_mean": chance.mean[at]}
                | {"chance_low": chance.low[at], "chance_high": chance.high[at]}
            )


@functools.cache
def _random_angles(dim: int, k: int) -> spectrum.AnglesChance:
    return spectrum.random_angles(dim, k, k)


@functools.cache
def _random_phi(size: int, dim: int) -> Baseline:
    return random_baseline(size, size, dim)
