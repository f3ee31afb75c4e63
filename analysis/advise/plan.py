"""What advice will cost, said before it begins: a step and an evaluation are timed, and memory is planned."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.advise.looks import CANDIDATES, depth, parts, whole
from analysis.advise.rates import GRID, Stage
from analysis.advise.subject import SEEDS, Ranks, Subject
from experiments import methods, problems, tasks
from experiments.config import RunConfig
from experiments.engines.sizing import memory
from experiments.jobs import resolve
from experiments.measure.memory.planner import plan as planned
from experiments.measure.memory.setup import Plan as Memory
from experiments.measure.memory.setup import Setup
from experiments.measure.memory.units import human
from experiments.measure.results import write
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from experiments.progress import span
from lora.errors import InputError
from lora.layer import turned
from lora.targets import find_places

MOST = 64  # the largest rank
LEAST = {"train": 16, "validation": 8}  # rows below which nothing can be told
BATCHES = 3  # that are timed, after one that is not
# Rates and how they are halved. The best comes first; fewer rates are the middle of the grid.
LADDER = (
    (GRID, (Stage(6, 0.25, 1), Stage(3, 0.5, 1), Stage(2, 1, 2))),
    (GRID[1:5], (Stage(4, 0.25, 1), Stage(2, 1, 2))),
    (GRID[2:5], (Stage(3, 0.25, 1), Stage(1, 1, 2))),
)
SWEEP_SETS, SWEEP_RUNS = 3, 9  # q, q+v, all types; of each setting 3 rates with 2 seeds, then 3 seeds
SECONDS = {"s": 1, "m": 60, "h": 3600}


class Size(NamedTuple):
    """Rows of the splits; seconds of a trained row, of a scored one, and of loading, on this machine, one run at a
    time; a training step's memory, None where it is not planned, for the reason `why`."""

    train: int
    validation: int
    step: float
    look: float
    load: float
    memory: Memory | None
    why: str = ""

    def run(self, epochs: int, share: float = 1.0) -> float:
        """Seconds of a run on this share of the examples."""
        return self.load + epochs * (share * self.train * self.step + self.validation * self.look)

    @property
    def held(self) -> str:
        """A training step's memory in words."""
        return human(self.memory.peak) if self.memory else f"an unknown amount ({self.why})"


class Plan(NamedTuple):
    """What will be done: r_max, the rates and how they are halved, the epochs of a run, looks at the cut updates of
    each seed, and runs beside those of the rates and of r_max."""

    r_max: int
    grid: Sequence[float]
    stages: Sequence[Stage]
    epochs: int
    looks: int
    beside: int = 0

    @property
    def others(self) -> int:
        """Runs of r_max that the last stage does not have, and those beside."""
        return len(SEEDS) - self.stages[-1].seeds + self.beside

    @property
    def runs(self) -> int:
        """All runs."""
        return sum(stage.runs for stage in self.stages) + self.others

    @property
    def worth(self) -> float:
        """Their training, in units of a whole run's."""
        return sum(stage.runs * stage.share for stage in self.stages) + self.others

    def seconds(self, size: Size) -> float:
        """One run at a time."""
        trained = sum(stage.runs * size.run(self.epochs, stage.share) for stage in self.stages)
        looked = len(SEEDS) * (2 * size.load + self.looks * size.validation * size.look)
        return trained + self.others * size.run(self.epochs) + looked

    @property
    def sweep(self) -> int:
        """Runs of the sweep that this stands in for: ranks 1, 2, 4, … r_max on q, on q+v and on all types, each with
        a rate of its own."""
        return self.r_max.bit_length() * SWEEP_SETS * SWEEP_RUNS

    def share(self, size: Size) -> float:
        """The share of that sweep's time."""
        return self.seconds(size) / (self.sweep * size.run(self.epochs))


def fitting(subject: Subject) -> tuple[int, Size]:
    """r_max: 64, or the largest power of two that all matrices have room for, halved until a training step fits into
    this machine; and the size. Raises InputError if none fits, and as `measured`."""
    places = find_places(subject.body, subject.lora(dict.fromkeys(subject.units, 1)))
    modules = [(subject.body.get_submodule(one.module), one.part.rows) for one in places]
    most = min(MOST, *(min(turned(own, own.weight)[rows].shape) for own, rows in modules))
    there = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else memory()
    r = 1 << (most.bit_length() - 1)
    while True:
        size = measured(subject, dict.fromkeys(subject.units, r))
        if size.memory is None or size.memory.peak <= there:
            return r, size
        if r == 1:
            raise InputError(
                f"a training step at r = 1 takes {size.held}, this machine has {human(there)}: give a smaller "
                "training.batch_size, runtime.checkpointing=true or model.quantization=nf4"
            )
        r //= 2


def measured(subject: Subject, ranks: Ranks) -> Size:
    """Loads the model and the data, times some steps with these adapters, and plans the memory of one.

    Raises InputError for data that cannot be read, for too few rows, and for a model that cannot take a step.
    """
    config = resolve(subject.config(ranks, 1e-3, SEEDS[0]))
    runtime = choose_runtime(config.runtime.device, config.runtime.precision, config.runtime.threads)
    started = time.perf_counter()
    data = tasks.load(config.task)
    for split, least in LEAST.items():
        if (there := len(getattr(data, split))) < least:
            raise InputError(f"{subject.task} has {there} {split} rows, {least} are needed at least: give more data")
    problem = problems.load(config, data, runtime)
    methods.apply(problem.model, config.method, problem.heads)
    load, train = time.perf_counter() - started, problem.rows["train"]
    try:
        step, look = _timed(problem, config.training.batch_size)
    except RuntimeError as error:  # torch's: an operation that lacks a type of numbers, memory that is not there
        raise InputError(
            f"a training step of {subject.model} fails: {' '.join(str(error).split())[:300]}: try "
            "runtime.precision=fp32, or a smaller training.batch_size"
        ) from error
    length = max(len(row["input_ids"]) for row in train)
    tokens = min(length - 1, math.ceil(problem.weight(train) / len(train))) if subject.writes else None
    held, why = _memory(config, length, tokens, "bf16" if runtime.dtype == torch.bfloat16 else "fp32")
    return Size(len(train), len(problem.rows["validation"]), step, look, load, held, why)


def _timed(problem: Problem, batch: int) -> tuple[float, float]:
    """Seconds of a trained row, and of a scored one."""
    train, checked = problem.rows["train"], problem.rows["validation"][: 4 * batch]
    rows = train[:: max(1, len(train) // (BATCHES * batch))][: BATCHES * batch]
    problem.backward(rows[:batch], batch)
    started = time.perf_counter()
    problem.backward(rows, batch)
    step = (time.perf_counter() - started) / len(rows)
    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(checked), batch):
            problem.loss(checked[first : first + batch])
    return step, (time.perf_counter() - started) / len(checked)


def _memory(config: RunConfig, length: int, tokens: int | None, precision: str) -> tuple[Memory | None, str]:
    """The plan of a step on rows as long as the longest, or why there is none; tokens: with a loss, of a row that a
    language model is trained on."""
    training = config.training
    setup = Setup(
        asdict(config.model), config.method, max(1, training.batch_size // (training.accumulate or 1)), length, tokens,
        precision, config.runtime.checkpointing, training.state_precision,
        "cuda" if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    try:
        return planned(setup), ""
    except InputError as error:
        return None, str(error)


def make(
    subject: Subject, r_max: int, size: Size, limit: str, grid: Sequence[float], beside: int, folder: Path
) -> Plan:
    """The best plan within a limit that `check` has let pass; grid: rates in place of the ladder's.

    What was begun goes on: the plan is kept in `folder`, which is there, as plan.json. Raises InputError for a time
    that is too short, with what would fit.
    """
    looks = len(whole(r_max)) + len(parts(subject.units, r_max, depth(subject.body))) + CANDIDATES
    epochs = subject.resolved.training.epochs
    ladder = [Plan(r_max, rates, stages, epochs, looks, beside) for rates, stages in _steps(grid)]
    asked = {"limit": limit, "grid": list(grid), "beside": beside, "r_max": r_max, "train": size.train, "looks": looks}
    rung = _begun(folder / "plan.json", asked)
    if rung is None:
        rung = _first(ladder, size, limit)
        write(folder / "plan.json", json.dumps({"asked": asked, "rung": rung}))
    return ladder[rung]


def check(limit: str, grid: Sequence[float], beside: int) -> None:
    """A limit, `20m` or a number of runs, "" for none, is one that some plan may fit: what needs no timing to be said.

    Raises InputError for a limit that is none, and for fewer runs than the smallest plan takes, on any model and task.
    """
    _, runs = _limit(limit)
    least = min(Plan(1, rates, stages, epochs=1, looks=0, beside=beside).runs for rates, stages in _steps(grid))
    if least > runs:
        runs_of = f"{least} runs" + f", {beside} of them for CONFIRM=1 or a MARGIN in %" * bool(beside)
        raise InputError(f"BUDGET={limit}: the smallest plan takes {runs_of}: give so many, or a time, as 20m")


def _steps(grid: Sequence[float]) -> Sequence[tuple[Sequence[float], tuple[Stage, ...]]]:
    """The ladder's rates and how they are halved, or one step with the rates that were typed."""
    return [(grid, (Stage(len(grid), 0.25, 1), Stage(min(2, len(grid)), 1, 2)))] if grid else LADDER


def _begun(place: Path, asked: Mapping[str, Any]) -> int | None:
    """The rung of a plan that was made for the same."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return int(found["rung"]) if found["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _first(ladder: Sequence[Plan], size: Size, limit: str) -> int:
    seconds, runs = _limit(limit)
    fits = [plan.seconds(size) <= seconds and plan.runs <= runs for plan in ladder]
    if any(fits):
        return fits.index(True)
    last = ladder[-1]
    trained = last.worth * last.epochs * size.train * size.step
    left = math.floor(size.train * (1 - (last.seconds(size) - seconds) / trained))
    smaller = f"; with ARGS='task.train_examples={left}' it fits" if left >= LEAST["train"] else ""
    raise InputError(
        f"BUDGET={limit} is too small: one run takes about {span(size.run(last.epochs))}, the smallest plan "
        f"({last.runs} runs) {span(last.seconds(size))}{smaller}"
    )


def _limit(text: str) -> tuple[float, float]:
    """Seconds and runs, infinite where they are not limited."""
    if not text:
        return math.inf, math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0 or (not match[2] and "." in match[1]):
        raise InputError(f"BUDGET={text}: give a time, as 20m or 2h, or a number of runs")
    return (float(match[1]) * SECONDS[match[2]], math.inf) if match[2] else (math.inf, float(match[1]))


def said(subject: Subject, plan: Plan, size: Size) -> list[str]:
    """What will be done, in lines."""
    parameters = subject.parameters(dict.fromkeys(subject.units, plan.r_max))
    halving = ", then ".join(f"{stage.runs} on {stage.share:.0%}" for stage in plan.stages)
    return [
        f"{subject.model} on {subject.task} ({subject.asked.preset}): rows {size.train:,} train, {size.validation:,} "
        "validation; the test set is not read",
        f"the largest adapter, r = {plan.r_max} on {' '.join(subject.units)}: {parameters:,} parameters; a training "
        f"step takes {size.held}",
        f"{len(plan.grid)} learning rates from {min(plan.grid):g} to {max(plan.grid):g}: {halving} of the examples; "
        f"{plan.others} beside: {plan.runs} runs, as much training as {plan.worth:.3g} whole ones",
        f"{plan.looks} looks at cut updates for each of {len(SEEDS)} seeds; in all about {span(plan.seconds(size))} "
        "here, one run at a time",
        f"a sweep of ranks 1 to {plan.r_max} on three sets of weight types takes {plan.sweep} runs, about "
        f"{span(plan.sweep * size.run(plan.epochs))}: this is {plan.share(size):.0%} of it",
    ]
