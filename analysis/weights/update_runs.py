"""The runs of a study whose updates are analysed: their updates, site by site, beside the weights they started from."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from analysis.kit import naming, tables
from analysis.maths import statistics
from analysis.maths.svd import SVD, Array
from analysis.weights import updates
from analysis.weights.comparison import Site
from analysis.weights.delta_w import Update
from analysis.weights.pretrained import Weights
from experiments.paths import user_path
from experiments.records.source import Runs
from experiments.store import fingerprint
from lora.config import InputError

ABOUT = ["model", "task", "run_id", "label", "settings", "r", "seed"]  # what a row of results says of its run
PLACE = ["model", "task"]
PRECISION = "precision"


class UpdateRun(NamedTuple):
    """A run: `about`, the fields of ABOUT, and its updates."""

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


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The rows of `kit.tables.load_runs` of the study's own runs, arranged; r is a number or NaN.

    Raises InputError as `load_runs`, if there is none, and if a seed of a method is there twice.
    """
    runs = tables.in_role(tables.load_runs(study_dir, runs_dir), "study").reset_index(drop=True)
    if runs.empty:
        raise InputError(f"{study_dir} has no finished run of its own; `{tables.make_command(study_dir)}` trains them")
    runs = naming.arranged(runs.assign(r=runs["r"].map(_rank)))
    tables.check_seeds(runs.drop_duplicates("run_id"), [*PLACE, "label", "settings"], study_dir)
    return runs


def of_each(runs: pd.DataFrame) -> pd.DataFrame:
    """ABOUT, a row a run, with PRECISION."""
    return runs.drop_duplicates("run_id")[[*ABOUT, PRECISION]].reset_index(drop=True)


def trained(
    runs: pd.DataFrame, chosen: Collection[str], study_dir: Path, runs_dir: Path, base: str | None = None
) -> list[Trained]:
    """The updates of the `chosen` of `runs`, run_ids, by the model that they started from.

    base: where the pretrained model is, if it was a folder, of which runs store the content alone. Raises InputError if
    an adapter is not there any more, and if a model or an update is missing or damaged.
    """
    stored = Runs(study_dir, runs_dir)
    opened: dict[tuple[str, str, str], Weights] = {}
    found: dict[tuple[str, str, str], list[UpdateRun]] = {}
    for record in of_each(runs[runs["run_id"].isin(chosen)]).to_dict("records"):
        about, precision = {name: record[name] for name in ABOUT}, str(record[PRECISION])
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


def _rank(r: Any) -> float:
    """r as a number; a mapping from weight types, or a method that has none, has no one rank."""
    return float(r) if isinstance(r, int | float) else float("nan")


def _open(path: str, base: str | None, run_id: str) -> Weights:
    if not path.startswith("fingerprint:"):
        return Weights.open(path)
    if base is None:
        raise InputError(f"run {run_id} started from a model folder of your own: say where it is, with --base FOLDER")
    folder = user_path(base)
    if not folder.is_dir() or path != f"fingerprint:{fingerprint(folder)}":
        raise InputError(f"{base} is not the model folder that run {run_id} started from: it is gone, or has changed")
    return Weights.open(base)


def trained_svd(about: dict[str, Any], update: Update) -> SVD:
    """All singular triplets of an update. Raises InputError if it is zero, and so has no directions."""
    svd = update.svd()
    if not svd.S[0] > 0:
        raise InputError(
            f"run {about['run_id']}: the update of {update.module}, {update.weight_type}, is zero: it was not trained"
        )
    return svd


def precision_note(runs: pd.DataFrame) -> str:
    """A sentence on which W the runs were trained on."""
    names = set(runs[PRECISION])
    rounding = f"rounded to {' or '.join(sorted(names))}, the precision in which the runs loaded it"
    return f"W is the pretrained weight {rounding if names != {'float32'} else 'in fp32, as the runs loaded it'}."


def quality(runs: pd.DataFrame) -> pd.DataFrame:
    """What the runs reached: for each model, task, method and rate the main metric on test data, mean ± half-width of
    the 95% interval over seeds."""
    test = runs[runs["main"] & (runs["split"] == "test")]
    cells = tables.summarise(test, [*PLACE, "metric", "label", "settings", "lr"])
    return pd.DataFrame(
        {
            "model": cells["model"], "task": cells["task"],
            "method": [naming.title(*key) for key in naming.keys(cells)],
            "lr": cells["lr"].map("{:g}".format),
            "test score in percent (seeds)": cells["metric"] + " "
            + [statistics.mean_text(*row) for row in cells[["mean", "interval", "n"]].itertuples(index=False)],
        }
    )  # fmt: skip
