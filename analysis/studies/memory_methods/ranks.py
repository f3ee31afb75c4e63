"""Is the update of a method low-rank? Ranks of every update beside those of random matrices, and what it shares with
LoRA's."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.kit import naming, tables
from analysis.maths import spectrum, statistics
from analysis.maths.subspace import Baseline, phi, random_baseline
from analysis.maths.svd import SVD, Array
from analysis.studies.spectrum.measures import FEW, SIDES
from analysis.studies.spectrum.tables import by_seed
from analysis.weights.update_runs import PLACE, PRECISION, Trained, trained_svd

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
    first, or if there is but one seed that. each: of `weights.update_runs.of_each`."""
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
            for about, update in group.at(site):
                svd = trained_svd(about, update)
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


def names(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(label, settings) -> a name for axes and tables, in order: the label alone where a place has it once, with r
    where that tells them apart, else with the settings."""
    found: dict[tuple[str, str], str] = {}
    for _, cells in runs.drop_duplicates([*PLACE, "label", "settings"]).groupby(PLACE, sort=False):
        for label, same in cells.groupby("label", sort=False):
            ranked = same["r"].notna().all() and same["r"].is_unique
            for run in same.sort_values("r", kind="stable").to_dict("records"):
                text = f"r={run['r']:g}" if ranked else run["settings"]
                found[str(label), run["settings"]] = naming.title(label, text if len(same) > 1 else "")
    return dict(sorted(found.items(), key=lambda item: naming.order(item[0][0])))


def summary(ranks: pd.DataFrame) -> pd.DataFrame:
    """A row a place, weight type and method: relative_norm, ||delta_w|| / ||W||, MEASURES and phi_<side>, means over
    layers and seeds, each with <name>_interval, half of the 95% interval over seeds (NaN for one); random_<measure>,
    chance_<side>, k, seeds and layers. ranks has `method`, as of `names`."""
    keys = [*PLACE, "weight_type", "method"]
    rows = ranks.assign(relative_norm=ranks["norm_delta_w"] / ranks["norm_w"])
    groups = rows.groupby(keys, sort=False)
    table = groups.agg(seeds=("seed", "nunique"), layers=("layer", "nunique"), k=("k", "first")).reset_index()
    for column in ("relative_norm", *MEASURES, *(f"phi_{side}" for side in SIDES)):
        cells = tables.summarise(by_seed(rows, column, keys), keys)
        table = table.merge(cells.rename(columns={"mean": column, "interval": f"{column}_interval"}).drop(columns="n"))
    chance = [*(f"random_{name}" for name in MEASURES), *(f"chance_{side}" for side in SIDES)]
    return table.merge(groups[chance].mean().reset_index(), on=keys)


def tests(ranks: pd.DataFrame) -> pd.DataFrame:
    """The effective rank of every method less that of full fine-tuning, at the sites that all methods of the place have
    trained: PLACE, method, the fields of `statistics.Paired` over seeds, p_holm, sites and weight_types."""
    found = []
    for key, cells in ranks.groupby(PLACE, sort=False):
        sites = list(zip(cells["layer"], cells["weight_type"], strict=True))
        trained: dict[str, set[tuple[Any, ...]]] = {}
        for method, site in zip(cells["method"], sites, strict=True):
            trained.setdefault(method, set()).add(site)
        shared = set.intersection(*trained.values())
        at = [site in shared for site in sites]
        if "full" in set(cells["method"]) and shared:
            values = by_seed(cells[at], "effective_rank", ["method"])
            types = "+".join(dict.fromkeys(cells[at]["weight_type"]))
            tested = statistics.against(values, ["method"], ["full"])
            found.append(tested.assign(model=str(key[0]), task=str(key[1]), sites=len(shared), weight_types=types))
    columns = [*PLACE, "method", *statistics.Paired._fields, "p_holm", "sites", "weight_types"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)
