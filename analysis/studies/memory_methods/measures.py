"""Is the update of a method low-rank? Ranks of every update beside those of random matrices, and what it shares with
LoRA's."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.kit.updates import FEW, PLACE, PRECISION, SIDES
from analysis.maths import spectrum
from analysis.maths.subspace import Baseline, phi, random_baseline
from analysis.maths.svd import SVD, Array

if TYPE_CHECKING:  # which load torch
    from analysis.weights.update_runs import Trained

MEASURES = {"stable_rank": "stable rank", "effective_rank": "effective rank", "top_share": f"share of the top {FEW}"}
DRAWS = 3  # of a random matrix: its ranks hardly vary
COLUMNS = [
    "run_id", "lora_run_id", "layer", "weight_type", "norm_w", "norm_delta_w", *MEASURES,
    *(f"random_{name}" for name in MEASURES), "k", *(f"phi_{side}" for side in SIDES),
    *(f"chance_{side}" for side in SIDES),
]  # fmt: skip


class _Measured(NamedTuple):
    """A run's update at one site: its row of results, and its top directions (dimension, up to FEW) by side."""

    row: dict[str, Any]
    directions: dict[str, Array]


def partners(each: pd.DataFrame) -> dict[str, list[str]]:
    """For each run_id the runs of LoRA that it may be compared with: of each setting that of the next seed, or the
    first, or if there is but one seed that. each: of `kit.updates.each`."""
    found: dict[str, list[str]] = {}
    for _, runs in each.groupby([*PLACE, PRECISION], sort=False):
        for run_id, seed in runs[["run_id", "seed"]].itertuples(index=False):
            lora = runs[(runs["label"] == "lora") & (runs["run_id"] != run_id)]
            found[run_id] = []
            for _, same in lora.groupby("settings", sort=False):
                later, others = same[same["seed"] > seed], same[same["seed"] != seed]
                found[run_id].append(next(part for part in (later, others, same) if len(part))["run_id"].iloc[0])
    return found


def stale(rows: pd.DataFrame, partners: Mapping[str, Sequence[str]]) -> list[str]:
    """The run_ids whose rows are beside other runs of LoRA than their partners."""
    if rows.empty:
        return []
    beside = {run_id: set(found) - {""} for run_id, found in rows.groupby("run_id")["lora_run_id"]}
    return [
        str(run_id)
        for run_id, found in beside.items()
        if not found <= set(partners[str(run_id)]) or bool(found) != bool(partners[str(run_id)])
    ]


def measure(groups: list[Trained], partners: Mapping[str, Sequence[str]], chosen: Collection[str]) -> pd.DataFrame:
    """A row a run of `chosen` and site: COLUMNS.

    top_share: of ||delta_w||_F^2, in the FEW largest singular values. random_<measure>: of a Gaussian matrix of the
    same shape. phi_<side>: the share of the top k directions that lies in those of LoRA's update at this site, k being
    FEW or LoRA's rank, on the input (right) and output (left) side; chance_<side> its mean for random directions.
    LoRA's run, lora_run_id, is the first of the run's partners that has trained the site: of the next seed (the same,
    if there is but one), so that common batches are not the reason; NaN where LoRA has trained nothing. Raises
    InputError if an update is zero.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        for site in group.sites:
            norm_w = float(np.linalg.norm(group.matrix(site)))
            measured: dict[str, _Measured] = {}
            for about, update, svd in group.svds(site):
                row = {"run_id": about["run_id"], **site._asdict()}
                row |= {"norm_w": norm_w, "norm_delta_w": float(np.linalg.norm(svd.S))}
                row |= _ranks(svd.S) | {f"random_{name}": value for name, value in _random_ranks(update.shape).items()}
                measured[about["run_id"]] = _Measured(row, {"right": svd.Vh[:FEW].T, "left": svd.U[:, :FEW]})
            for run_id, one in measured.items():
                if run_id in chosen:
                    lora = next((other for other in partners[run_id] if other in measured), "")
                    shared = _shared(one, measured[lora]) if lora else {}
                    rows.append(one.row | {"lora_run_id": lora} | shared)
    return pd.DataFrame(rows, columns=COLUMNS)


def _ranks(S: Array) -> dict[str, float]:
    squares = np.square(S)
    share = float(squares[:FEW].sum() / squares.sum())
    return dict(zip(MEASURES, (spectrum.stable_rank(S), spectrum.effective_rank(S), share), strict=True))


@functools.cache
def _random_ranks(shape: tuple[int, int]) -> dict[str, float]:
    drawn = np.random.default_rng(0).standard_normal((DRAWS, *shape))
    ranks = [_ranks(SVD(*np.linalg.svd(matrix, full_matrices=False)).S) for matrix in drawn]
    return {name: float(np.mean([found[name] for found in ranks])) for name in MEASURES}


def _shared(one: _Measured, lora: _Measured) -> dict[str, float]:
    found: dict[str, float] = {}
    for side in SIDES:
        ours, theirs = one.directions[side], lora.directions[side]
        k = min(ours.shape[1], theirs.shape[1])
        chance = _random_phi(k, len(ours))
        found |= {"k": k, f"phi_{side}": phi(ours, theirs)[k - 1, k - 1], f"chance_{side}": chance.mean[-1, -1]}
    return found


@functools.cache
def _random_phi(k: int, dim: int) -> Baseline:
    return random_baseline(k, k, dim)
