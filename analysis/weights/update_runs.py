"""The runs of a study whose updates are analysed: their updates, site by site, beside the weights they started from."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from analysis.kit import tables
from analysis.maths.svd import SVD, Array
from analysis.weights import updates
from analysis.weights.delta_w import Update
from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from experiments.paths import user_path
from experiments.records.source import Runs
from experiments.store import fingerprint
from lora.config import InputError

PRECISION = "precision"


class UpdateRun(NamedTuple):
    """A run: `about`, what it is, as of `kit.updates.ABOUT`, and its updates."""

    about: dict[str, Any]
    updates: updates.Updates


class Trained(NamedTuple):
    """The runs that started from one model: `weights`, in the precision in which it was loaded, and the runs."""

    model: str
    weights: Weights
    runs: list[UpdateRun]

    @property
    def sites(self) -> list[Site]:
        """The sites that at least one run has trained, in the model's order."""
        return [site for site in self.weights.sites if any(site in run.updates for run in self.runs)]

    def matrix(self, site: Site) -> Array:
        """W (d, k) of a site, fp64."""
        W: Array = self.weights.matrix(*self.weights.sites[site]).double().numpy()
        return W

    def at(self, site: Site) -> Iterator[tuple[dict[str, Any], Update]]:
        """About and the update of every run that has trained a site."""
        return ((run.about, run.updates[site]) for run in self.runs if site in run.updates)

    def svds(self, site: Site) -> Iterator[tuple[dict[str, Any], Update, SVD]]:
        """And all singular triplets of the update. Raises InputError if it is zero, and so has no directions."""
        for about, update in self.at(site):
            svd = update.svd()
            if not svd.S[0] > 0:
                where = f"the update of {update.module}, {update.weight_type},"
                raise InputError(f"run {about['run_id']}: {where} is zero: it was not trained")
            yield about, update, svd


def trained(
    each: pd.DataFrame, chosen: Collection[str], study_dir: Path, runs_dir: Path, base: str | None = None
) -> list[Trained]:
    """The updates of the run_ids `chosen`, by the model that they started from; each: of `kit.updates.each`.

    base: where the pretrained model is, if it was a folder, of which runs store the content alone. Raises InputError if
    an adapter is not there any more, and if a model or an update is missing or damaged.
    """
    stored = Runs(study_dir, runs_dir)
    opened: dict[tuple[str, str, str], Weights] = {}
    found: dict[tuple[str, str, str], list[UpdateRun]] = {}
    for record in each[each["run_id"].isin(chosen)].to_dict("records"):
        precision = str(record.pop(PRECISION))
        about = {str(name): value for name, value in record.items()}
        folder = adapter(about["run_id"], study_dir, runs_dir).parent
        path = str(stored[about["run_id"]].config["model"]["path"])
        key = about["model"], path, precision
        if key not in opened:
            opened[key] = _open(path, base, about["run_id"]).rounded(getattr(torch, precision))
        own = opened[key] if path.startswith("fingerprint:") else None
        found.setdefault(key, []).append(UpdateRun(about, updates.read_run(folder, own)))
    return [Trained(key[0], opened[key], runs) for key, runs in found.items()]


def adapter(run_id: str, study_dir: Path, runs_dir: Path) -> Path:
    """The folder of a run's adapter. Raises InputError if there is none, so that nothing can be measured on it."""
    folder = runs_dir / run_id / "adapter"
    if not folder.is_dir():
        raise InputError(
            f"run {run_id} is not measured yet in {study_dir}, and its adapter is not in {folder}; "
            f"`{tables.make_command(study_dir)}` trains it"
        )
    return folder


def _open(path: str, base: str | None, run_id: str) -> Weights:
    if not path.startswith("fingerprint:"):
        return Weights.open(path)
    if base is None:
        raise InputError(f"run {run_id} started from a model folder of your own: say where it is, with --base FOLDER")
    folder = user_path(base)
    if not folder.is_dir() or path != f"fingerprint:{fingerprint(folder)}":
        raise InputError(f"{base} is not the model folder that run {run_id} started from: it is gone, or has changed")
    return Weights.open(base)
