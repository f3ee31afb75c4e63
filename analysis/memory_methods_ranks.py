"""Is the update of a method low-rank? Ranks of every update beside those of random matrices, and what it shares with
LoRA's."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis import naming, spectrum, statistics, tables
from analysis.spectrum_measures import FEW, SIDES
from analysis.spectrum_tables import by_seed
from analysis.subspace import Baseline, phi, random_baseline
from analysis.svd import SVD, Array
from analysis.update_runs import ABOUT, PLACE, Trained, trained_svd

MEASURES = {"stable_rank": "stable rank", "effective_rank": "effective rank", "top_share": f"share of the top {FEW}"}
DRAWS = 3  # of a random matrix: its ranks hardly vary
COLUMNS = [
    *ABOUT, "layer", "weight_type", "norm_w", "norm_delta_w", *MEASURES, *(f"random_{name}" for name in MEASURES),
    "k", *(f"phi_{side}" for side in SIDES), *(f"chance_{side}" for side in SIDES),
]  # fmt: skip


class _Measured(NamedTuple):
    """A run's update at one site: its row of results, and its top directions (dimension, up to FEW) by side."""

    row: dict[str, Any]
    directions: dict[str, Array]


def measure(groups: list[Trained]) -> pd.DataFrame:
    """A row a run and site: COLUMNS.

    top_share: of ||delta_w||_F^2, in the FEW largest singular values. random_<measure>: of a Gaussian matrix of the
    same shape. phi_<side>: the share of the top k directions that lies in those of LoRA's update at this site, k being
    FEW or LoRA's rank, on the input (right) and output (left) side; chance_<side> its mean for random directions.
    LoRA's run is that of the next seed (the same, if there is but one), so that common batches are not the reason; NaN
    where LoRA has trained nothing. Raises InputError if an update is zero.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        for site in group.sites:
            norm_w = float(np.linalg.norm(group.matrix(site)))
            measured = []
            for about, update in group.at(site):
                svd = trained_svd(about, update)
                row = about | site._asdict() | {"norm_w": norm_w, "norm_delta_w": float(np.linalg.norm(svd.S))}
                row |= _ranks(svd.S) | {f"random_{name}": value for name, value in _random_ranks(update.shape).items()}
                measured.append(_Measured(row, {"right": svd.Vh[:FEW].T, "left": svd.U[:, :FEW]}))
            rows += [one.row | _shared(one, _lora(one, measured)) for one in measured]
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


def _lora(one: _Measured, measured: Sequence[_Measured]) -> _Measured | None:
    """The run of LoRA that one is compared with; None if there is no other."""
    about = one.row
    found = [
        other
        for other in measured
        if other.row["label"] == "lora"
        and all(other.row[name] == about[name] for name in PLACE)
        and other.row["run_id"] != about["run_id"]
    ]
    first = [other for other in found if other.row["settings"] == found[0].row["settings"]]
    others = [other for other in first if other.row["seed"] != about["seed"]]
    later = [other for other in others if other.row["seed"] > about["seed"]]
    return next(iter(later or others or first), None)


def _shared(one: _Measured, lora: _Measured | None) -> dict[str, float]:
    if lora is None:
        return {}
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
