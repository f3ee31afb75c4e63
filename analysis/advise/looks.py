"""Looks: the largest adapter with its updates cut, scored on validation data; nothing is trained.

A pick says what is kept of it: a rank for each unit (a weight type, or a pattern of modules), and layers that get none.
By Eckart and Young the k largest terms of the SVD of B A are the best approximation of rank k
(`experiments.measure.cuts`). A look is stored under its run as soon as it was taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tqdm.auto import tqdm

from analysis.advise.subject import Subject
from analysis.maths.svd import Array
from experiments import methods, problems, tasks
from experiments.config import RunConfig
from experiments.measure import cuts
from experiments.measure.results import make_folder
from experiments.measure.stored_runs import PRECISIONS
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from experiments.training import train
from lora import io
from lora.errors import InputError
from lora.model import lora_layers
from lora.targets import layer_of

MOST_BLOCKS = 6
HEALING = 0.1  # of a run's steps


class Pick(NamedTuple):
    """Ranks by unit, in the subject's order; layers whose updates are left out; healed: trained on for a tenth of the
    steps after the cut."""

    ranks: tuple[int, ...]
    without: tuple[int, ...] = ()
    healed: bool = False

    @property
    def key(self) -> str:
        """What tells it from the others of a run."""
        return json.dumps(self)


def uniform(units: int, k: int) -> Pick:
    """The same rank everywhere."""
    return Pick((k,) * units)


def whole(r_max: int) -> list[int]:
    """The ranks to which the whole update is cut: 0, 1, 2, 4, … r_max."""
    return [0, *(1 << power for power in range(r_max.bit_length()))]


def blocks(depth: int) -> list[tuple[int, ...]]:
    """Layers in at most six blocks of neighbours."""
    return [tuple(part.tolist()) for part in np.array_split(np.arange(depth), min(depth, MOST_BLOCKS)) if len(part)]


def alone(units: int, unit: int, k: int) -> Pick:
    """One unit at rank k, the others at none."""
    return Pick(tuple(k if place == unit else 0 for place in range(units)))


def left_out(units: int, unit: int, k: int) -> Pick:
    """One unit at none, the others at rank k."""
    return Pick(tuple(0 if place == unit else k for place in range(units)))


def few(r_max: int) -> list[int]:
    """The ranks at which a unit is looked at alone."""
    return sorted({1, min(8, r_max), r_max})


def parts(units: Sequence[str], r_max: int, layers: Sequence[tuple[int, ...]]) -> list[Pick]:
    """Each unit alone at some ranks, each left out, and each block of layers left out."""
    n = len(units)
    found = [alone(n, unit, k) for unit in range(n) for k in few(r_max)] + [
        left_out(n, unit, r_max) for unit in range(n)
    ]
    return [*found, *(Pick((r_max,) * n, block) for block in layers)] if len(layers) > 1 else found


class Looked(NamedTuple):
    """Of a pick: its score by seed (seeds,), higher is better (minus the loss where text is written), and the score of
    each item (seeds, items), whose mean it is; None where the metric is no mean over items."""

    scores: Array
    items: Array | None


class Looks:
    """Looks at the runs of the largest adapter, by seed; `folder` keeps them."""

    def __init__(self, subject: Subject, runs: Sequence[tuple[str, RunConfig]], r_max: int, folder: Path) -> None:
        self.subject, self.runs, self.r_max, self.folder = subject, runs, r_max, folder / ".looks"
        self.metric, self.heads = "", 0
        self.found: dict[str, dict[str, NDArray[Any]]] = {run: self._stored(run) for run, _ in runs}
        self.spectra: Array = np.zeros((len(subject.units), r_max))

    def take(self, picks: Sequence[Pick]) -> list[Looked]:
        """What each pick comes to; those that are not stored are measured. Raises InputError for a damaged adapter."""
        make_folder(self.folder)
        for run, config in self.runs:
            missing = [pick for pick in dict.fromkeys(picks) if pick.key not in self.found[run]]
            if missing or not self.metric:
                self._look(run, config, missing)
        return [self._looked(pick) for pick in picks]

    def _looked(self, pick: Pick) -> Looked:
        rows = np.stack([self.found[run][pick.key] for run, _ in self.runs])
        return Looked(rows[:, 0], rows[:, 1:] if rows.shape[1] > 1 else None)

    def _look(self, run: str, config: RunConfig, picks: Sequence[Pick]) -> None:
        folder = self.subject.store.folder(run) / "adapter"
        check(folder, run)
        precision = PRECISIONS[self.subject.store.metrics(run)["precision"]]
        runtime = choose_runtime(config.runtime.device, precision, config.runtime.threads)
        data = tasks.load(config.task)
        problem, update = self._load(config, data, runtime, folder)
        self._note(problem, update)
        with tqdm(picks, desc=f"looks at {run}", unit="look", disable=None, leave=False) as bar:
            for pick in bar:
                if pick.healed:
                    problem, update = self._load(config, data, runtime, folder)
                self._cut(problem, update, pick)
                if pick.healed:
                    _heal(problem, config)
                self.found[run][pick.key] = _scored(problem)
                self._store(run)

    def _load(self, config: RunConfig, data: Any, runtime: Any, folder: Path) -> tuple[Problem, cuts.Cuts]:
        problem = problems.load(config, data, runtime)
        return problem, cuts.load(problem.model, config.method, problem.heads, folder, self.r_max)

    def _places(self, problem: Problem) -> list[tuple[int, int | None]]:
        """The unit and the layer of each cut."""
        units = list(self.subject.units)
        return [
            (units.index(self.subject.unit_of(name, part.name)), layer_of(name))
            for name, layer in lora_layers(problem.model)
            for part in layer.parts
        ]

    def _cut(self, problem: Problem, update: cuts.Cuts, pick: Pick) -> None:
        for cut, (unit, layer) in zip(update.matrices, self._places(problem), strict=True):
            cut.to(0 if layer in pick.without else min(pick.ranks[unit], len(cut.S)))

    def _note(self, problem: Problem, update: cuts.Cuts) -> None:
        """The metric, the head's size, and the energy of each term, summed over a unit's matrices and over runs."""
        self.metric = problem.validation_metric
        self.heads = sum(
            own.numel() for name in problem.heads for own in problem.model.get_submodule(name).parameters()
        )
        for cut, (unit, _) in zip(update.matrices, self._places(problem), strict=True):
            self.spectra[unit, : len(cut.S)] += cut.S.double().square().cpu().numpy()

    def _file(self, run: str) -> Path:
        return self.folder / f"{run}.npz"

    def _stored(self, run: str) -> dict[str, NDArray[Any]]:
        try:
            with np.load(self._file(run)) as stored:
                return {key: stored[key] for key in stored.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self._file(run)} is damaged: delete it, the same command measures anew") from error

    def _store(self, run: str) -> None:
        temporary = self._file(run).with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, **self.found[run])  # type: ignore[arg-type]
        temporary.replace(self._file(run))


def check(folder: Path, run: str) -> None:
    """Raises InputError for an adapter with numbers that are none."""
    for name, tensor in load_file(folder / io.WEIGHTS).items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"run {run} has NaN or infinity in {name}: delete {folder.parent}, the same command trains it"
            )


def _heal(problem: Problem, config: RunConfig) -> None:
    """Trains on for a tenth of the steps. What was cut away stays zero: where a row of A and the column of B are both
    zero, so are their gradients."""
    training = config.training
    count = math.ceil(HEALING * training.epochs * len(problem.rows["train"]))
    problem.rows["train"] = problem.rows["train"][:count]
    groups = methods.parameter_groups(problem.model, config.method, problem.heads, training.lr, training.head_lr)
    once = replace(training, epochs=1, weight_decay=0.0)
    train(problem, groups, once, int(config.seed), [], progress=False, method=config.method)


def _scored(problem: Problem) -> NDArray[Any]:
    """The score on validation data, then that of each item where it is their mean."""
    found = problem.evaluate("validation", generate=False)
    metric, items = problem.validation_metric, found.items
    if metric == "loss":
        assert items.loss is not None
        weight = np.ones(len(items)) if items.weight is None else items.weight / items.weight.mean()
        return np.concatenate([[-found.scores["loss"]], -items.loss * weight])
    score = found.scores[metric]
    right = items.correct if metric == "accuracy" else None
    return np.array([score]) if right is None else np.concatenate([[score], right])
