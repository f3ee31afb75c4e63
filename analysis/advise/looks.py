"""Looks: the largest adapter with its updates cut, scored on validation data. Nothing is trained, but to heal.

By Eckart and Young the k largest terms of the SVD of B A are the best approximation of rank k
(`experiments.measure.cuts`). A look is stored under its run as soon as it was taken.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
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
from experiments import items, methods, problems, tasks
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
CANDIDATES = 16  # smaller adapters that are looked at, at most
HEALING = 0.1  # of a run's steps


class Pick(NamedTuple):
    """What is kept: a rank for each unit, in the subject's order; layers whose updates are left out; healed: after the
    cut it is trained on for a tenth of the steps."""

    ranks: tuple[int, ...]
    without: tuple[int, ...] = ()
    healed: bool = False


def uniform(units: int, k: int, but: int | None = None, only: int | None = None) -> Pick:
    """Rank k for all units, for all but one, or for one alone."""
    return Pick(tuple(k if place != but and only in (None, place) else 0 for place in range(units)))


def whole(r_max: int) -> list[int]:
    """The ranks to which the whole update is cut: 0, 1, 2, 4, … r_max."""
    return [0, *(1 << power for power in range(r_max.bit_length()))]


def few(r_max: int) -> list[int]:
    """The ranks at which a unit is looked at alone."""
    return sorted({1, min(8, r_max), r_max})


def depth(body: Any) -> int:
    """The number of layers."""
    return 1 + max((layer_of(name) or 0 for name, _ in body.named_modules()), default=0)


def blocks(layers: int) -> list[tuple[int, ...]]:
    """Layers in at most six blocks of neighbours; none where there is one layer."""
    found = np.array_split(np.arange(layers), min(layers, MOST_BLOCKS))
    return [tuple(part.tolist()) for part in found] if layers > 1 else []


def parts(units: Sequence[str], r_max: int, layers: int) -> list[Pick]:
    """Each unit alone at some ranks, each left out, and each block of layers left out."""
    n = len(units)
    alone = [uniform(n, k, only=unit) for unit in range(n) for k in few(r_max)]
    without = [uniform(n, r_max, but=unit) for unit in range(n)]
    return [*alone, *without, *(Pick((r_max,) * n, block) for block in blocks(layers))]


class Looked(NamedTuple):
    """Scores by seed (seeds,), higher is better: the main metric, or minus the loss where text is written; and those of
    each item (seeds, items), of which they are means; None where a metric is no mean over items."""

    scores: Array
    items: Array | None

    def minus(self, other: Looked) -> Looked:
        """The differences to another of the same seeds and items."""
        both = None if self.items is None or other.items is None else self.items - other.items
        return Looked(self.scores - other.scores, both)


def scored(scores: Mapping[str, float], each: items.Items, metric: str) -> Array:
    """A score (1 + items,) of a metric, and after it that of each item, where it is their mean."""
    if metric == "loss" and each.loss is not None:
        weight = np.ones(len(each)) if each.weight is None else each.weight / each.weight.mean()
        return np.concatenate([[-scores["loss"]], -each.loss.astype(float) * weight])
    right = [] if metric != "accuracy" or each.correct is None else each.correct.tolist()
    return np.array([scores[metric], *right], dtype=float)


def together(rows: Sequence[Array]) -> Looked:
    """Of `scored`, a row a seed."""
    stacked = np.stack(rows)
    return Looked(stacked[:, 0], stacked[:, 1:] if stacked.shape[1] > 1 else None)


class Looks:
    """Looks at the runs of the largest adapter, by seed; they are stored in `folder`/.looks.

    metric: what is scored; head: parameters of the task's head; spectra (units, r_max): the energy of the i-th terms of
    a unit's matrices, all runs together; seconds: that looks took. Known after the first `take`.
    """

    def __init__(self, subject: Subject, runs: Mapping[str, RunConfig], r_max: int, folder: Path) -> None:
        self.subject, self.runs, self.r_max, self.folder = subject, runs, r_max, folder / ".looks"
        self.metric, self.head, self.spectra = "", 0, np.zeros((len(subject.units), r_max))
        self.found = {run: self._stored(run) for run in runs}

    @property
    def seconds(self) -> float:
        """What the looks took."""
        return sum(float(own["seconds"]) for own in self.found.values())

    def take(self, picks: Sequence[Pick]) -> dict[Pick, Looked]:
        """What each pick comes to; what is not stored is measured. Raises InputError for an adapter with NaN."""
        make_folder(self.folder)
        first = not self.metric
        for run, config in self.runs.items():
            missing = [pick for pick in dict.fromkeys(picks) if json.dumps(pick) not in self.found[run]]
            if missing or first:
                self._look(run, config, missing, first)
        return {pick: together([self.found[run][json.dumps(pick)] for run in self.runs]) for pick in picks}

    def _look(self, run: str, config: RunConfig, picks: Sequence[Pick], first: bool) -> None:
        check(self.subject.store.folder(run))
        precision = PRECISIONS[self.subject.store.metrics(run)["precision"]]
        config = replace(config, runtime=replace(config.runtime, precision=precision))
        data = tasks.load(config.task)
        problem, update = self._load(run, config, data)
        if first:
            self._note(problem, update)
        for pick in tqdm(picks, desc=f"looks at {run}", unit="look", disable=None, leave=False):
            started = time.perf_counter()
            if pick.healed:
                problem, update = self._load(run, config, data)
            for cut, (unit, layer) in zip(update.matrices, self._places(problem), strict=True):
                cut.to(0 if layer in pick.without else min(pick.ranks[unit], len(cut.S)))
            if pick.healed:
                _heal(problem, config)
            found = problem.evaluate("validation", generate=False)
            self.found[run][json.dumps(pick)] = scored(found.scores, found.items, problem.validation_metric)
            self.found[run]["seconds"] = self.found[run]["seconds"] + time.perf_counter() - started
            self._store(run)

    def _load(self, run: str, config: RunConfig, data: Any) -> tuple[Problem, cuts.Cuts]:
        where = config.runtime
        problem = problems.load(config, data, choose_runtime(where.device, where.precision, where.threads))
        folder = self.subject.store.folder(run) / "adapter"
        return problem, cuts.load(problem.model, config.method, problem.heads, folder, self.r_max)

    def _places(self, problem: Problem) -> list[tuple[int, int | None]]:
        """The unit and the layer of each cut."""
        layers = lora_layers(problem.model)
        return [(self.subject.unit_of(name, part.name), layer_of(name)) for name, own in layers for part in own.parts]

    def _note(self, problem: Problem, update: cuts.Cuts) -> None:
        self.metric = problem.validation_metric
        heads = [problem.model.get_submodule(name) for name in problem.heads]
        self.head = sum(parameter.numel() for head in heads for parameter in head.parameters())
        for cut, (unit, _) in zip(update.matrices, self._places(problem), strict=True):
            self.spectra[unit, : len(cut.S)] += cut.S.double().square().cpu().numpy()

    def _stored(self, run: str) -> dict[str, NDArray[Any]]:
        place = self.folder / f"{run}.npz"
        try:
            with np.load(place) as stored:
                return {key: stored[key] for key in stored.files}
        except FileNotFoundError:
            return {"seconds": np.zeros(())}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{place} is damaged: delete it, the same command measures anew") from error

    def _store(self, run: str) -> None:
        temporary = self.folder / f"{run}.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, **self.found[run])  # type: ignore[arg-type]
        temporary.replace(self.folder / f"{run}.npz")


def check(folder: Path) -> None:
    """Raises InputError for a run whose adapter holds NaN or infinity."""
    for name, tensor in load_file(folder / "adapter" / io.WEIGHTS).items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"run {folder.name} has NaN in {name}: delete {folder}, the same command trains it again")


def _heal(problem: Problem, config: RunConfig) -> None:
    """Trains on for a tenth of the steps. What was cut away stays zero: where a row of A and the column of B are both
    zero, so are their gradients."""
    training = config.training
    count = math.ceil(HEALING * training.epochs * len(problem.rows["train"]))
    problem.rows["train"] = problem.rows["train"][:count]
    groups = methods.parameter_groups(problem.model, config.method, problem.heads, training.lr, training.head_lr)
    train(problem, groups, replace(training, epochs=1), config.seed, [], progress=False, method=config.method)
