"""What advice will cost, said before it begins: a step and an evaluation are timed, and memory is planned."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from analysis.advise.looks import blocks, parts, whole
from analysis.advise.rates import GRID, Stage
from analysis.advise.subject import MOST, SEEDS, Ranks, Subject
from experiments import method_settings, methods, problems, tasks
from experiments.config import RunConfig
from experiments.engines.sizing import memory
from experiments.measure.memory.planner import plan as planned
from experiments.measure.memory.setup import Plan as Memory
from experiments.measure.memory.setup import Setup
from experiments.measure.memory.units import human
from experiments.measure.results import make_folder, write
from experiments.models import choose_runtime
from experiments.progress import span
from lora.errors import InputError
from lora.targets import find_places, layer_of

LEAST = {"train": 16, "validation": 8}  # rows below which nothing can be told
BATCHES = 3  # timed, after one that is not
CONFIRMED, FLOOR = 9, 3  # runs of CONFIRM=1, and of the head alone
CANDIDATES = 16  # looks at smaller adapters, at most
# Few rates are a narrower grid about its middle. The best plan comes first.
LADDER = (
    (GRID, (Stage(6, 0.25, 1), Stage(3, 0.5, 1), Stage(2, 1, 2))),
    (GRID[1:5], (Stage(4, 0.25, 1), Stage(2, 1, 2))),
    (GRID[2:5], (Stage(3, 0.25, 1), Stage(1, 1, 2))),
)
SWEEP_SETS, SWEEP_RUNS = 3, 9  # q, q+v, all; of each setting 3 rates with 2 seeds, and 3 seeds


class Size(NamedTuple):
    """What was measured on this machine, one run at a time: rows of the splits, seconds of a trained and of a scored
    row, of loading model and data, the longest row in tokens, and bytes of a training step (None: not planned, why)."""

    train: int
    validation: int
    step: float
    look: float
    load: float
    length: int
    memory: Memory | None
    why: str = ""

    def run(self, epochs: int, share: float = 1.0) -> float:
        """Seconds of a run on this share of the examples."""
        return self.load + epochs * (share * self.train * self.step + self.validation * self.look)


class Plan(NamedTuple):
    """What will be done: r_max, the rates and how they are halved, epochs of a run; looks: evaluations of cut updates,
    on each of the seeds; more: runs beside those of the rates and of r_max."""

    r_max: int
    grid: Sequence[float]
    stages: Sequence[Stage]
    epochs: int
    looks: int
    more: int = 0

    @property
    def runs(self) -> int:
        """All runs. The last stage's of the best rate are r_max's own."""
        return sum(stage.runs for stage in self.stages) + self._rest + self.more

    @property
    def _rest(self) -> int:
        return len(SEEDS) - self.stages[-1].seeds

    @property
    def worth(self) -> float:
        """Training in units of a whole run."""
        return sum(stage.runs * stage.share for stage in self.stages) + self._rest + self.more

    def seconds(self, size: Size) -> float:
        """One run at a time."""
        trained = sum(stage.runs * size.run(self.epochs, stage.share) for stage in self.stages)
        looked = len(SEEDS) * (2 * size.load + self.looks * size.validation * size.look)
        return trained + (self._rest + self.more) * size.run(self.epochs) + looked

    def sweep(self) -> int:
        """Runs of the sweep that this stands in for: ranks 1, 2, 4, … r_max on q, on q+v and on all types, each with
        its own rate."""
        return (self.r_max.bit_length()) * SWEEP_SETS * SWEEP_RUNS

    def share(self, size: Size) -> float:
        """The share of that sweep's time."""
        return self.seconds(size) / (self.sweep() * size.run(self.epochs))


def largest(subject: Subject) -> int:
    """The largest power of two that every adapted matrix can have as its rank, 64 at most."""
    modules = dict(subject.body.named_modules())
    found = find_places(subject.body, subject.lora(dict.fromkeys(subject.units, 1)))
    shapes = [modules[place.module].weight[place.part.rows].shape for place in found]
    most = min(MOST, *(min(shape) for shape in shapes))
    return 1 << (most.bit_length() - 1)


def fitting(subject: Subject) -> tuple[int, Size]:
    """r_max, halved until a training step fits into the memory of this machine, and its size.

    Raises InputError if no rank fits, for a task that cannot be read, and for one with too few rows.
    """
    r = largest(subject)
    while True:
        size = measured(subject, dict.fromkeys(subject.units, r))
        there = _there()
        if size.memory is None or size.memory.peak <= there:
            return r, size
        if r == 1:
            raise InputError(
                f"a training step at r = 1 takes {human(size.memory.peak)}, this machine has {human(there)}: give a "
                "smaller training.batch_size, runtime.checkpointing=true or model.quantization=nf4"
            )
        r //= 2


def _there() -> int:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else memory()


def measured(subject: Subject, ranks: Ranks) -> Size:
    """Loads the model and the data, times some steps with these adapters, and plans the memory of one."""
    config = subject.run(subject.config(ranks, 1e-3, SEEDS[0]))
    runtime = choose_runtime(config.runtime.device, config.runtime.precision, config.runtime.threads)
    started = time.perf_counter()
    data = tasks.load(config.task)
    for split, least in LEAST.items():
        rows = len(getattr(data, split))
        if rows < least:
            raise InputError(f"{subject.task} has {rows} {split} rows, at least {least} are needed: give more data")
    problem = problems.load(config, data, runtime)
    methods.apply(problem.model, config.method, problem.heads)
    load = time.perf_counter() - started
    batch = config.training.batch_size
    train, checked = problem.rows["train"], problem.rows["validation"][: 4 * batch]
    rows = [
        row
        for first in range(0, len(train), max(1, len(train) // (BATCHES * batch)))
        for row in train[first : first + 1]
    ]
    rows = rows[: BATCHES * batch]
    problem.model.train()
    problem.backward(rows[:batch], batch)
    started = time.perf_counter()
    problem.backward(rows, batch)
    step = (time.perf_counter() - started) / len(rows)
    problem.model.eval()
    started = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(checked), batch):
            problem.loss(checked[first : first + batch])
    look = (time.perf_counter() - started) / len(checked)
    length = max(len(row["input_ids"]) for row in train)
    found, why = _memory(
        config, length, problem.weight(train) if subject.writes else None, len(train), str(runtime.dtype)
    )
    return Size(len(train), len(problem.rows["validation"]), step, look, load, length, found, why)


def _memory(config: RunConfig, length: int, tokens: int | None, rows: int, dtype: str) -> tuple[Memory | None, str]:
    """The plan of a step on rows as long as the longest; `tokens`: with a loss, of all rows of a language model."""
    setup = Setup(
        asdict(config.model),
        config.method,
        max(1, config.training.batch_size // (config.training.accumulate or 1)),
        length,
        targets=None if tokens is None else min(length - 1, math.ceil(tokens / rows)),
        precision="bf16" if "bfloat16" in dtype else "fp32",
        checkpointing=config.runtime.checkpointing,
        state_precision=config.training.state_precision,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    try:
        return planned(setup), ""
    except InputError as error:
        return None, str(error)


def make(subject: Subject, r_max: int, size: Size, limit: str, rates: Sequence[float], more: int, folder: Path) -> Plan:
    """The best plan within a limit, `20m` or a number of runs, "" for none. A plan that was begun goes on: it is in
    `folder`/plan.json. rates: in place of those of the ladder.

    Raises InputError for a limit that is none, and for one that is too small, with what would fit.
    """
    depth = len({layer_of(name) for name, _ in subject.body.named_modules() if layer_of(name) is not None})
    looks = len(whole(r_max)) + len(parts(subject.units, r_max, blocks(depth))) + CANDIDATES
    epochs = subject.resolved.training.epochs
    ladder = [Plan(r_max, grid, stages, epochs, looks, more) for grid, stages in LADDER]
    if rates:
        half = Stage(min(2, len(rates)), 1, 2)
        ladder = [Plan(r_max, rates, (Stage(len(rates), 0.25, 1), half), epochs, looks, more)]
    asked = {"limit": limit, "rates": list(rates), "more": more, "r_max": r_max, "train": size.train, "looks": looks}
    place = folder / "plan.json"
    make_folder(folder)
    begun = _begun(place, asked)
    if begun is None or begun >= len(ladder):
        begun = _first(ladder, size, limit)
        write(place, json.dumps({"asked": asked, "rung": begun}))
    return ladder[begun]


def _begun(place: Path, asked: dict[str, Any]) -> int | None:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return int(found["rung"]) if found["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _first(ladder: Sequence[Plan], size: Size, limit: str) -> int:
    if not limit:
        return 0
    seconds, runs = _limit(limit)
    for rung, plan in enumerate(ladder):
        if plan.seconds(size) <= seconds and plan.runs <= runs:
            return rung
    last = ladder[-1]
    if last.runs > runs:
        raise InputError(f"BUDGET={limit}: the smallest plan takes {last.runs} runs: give that many, or a time as 20m")
    all_there_is, one = last.seconds(size), size.run(last.epochs)
    trained = last.worth * last.epochs * size.train * size.step
    left = math.floor(size.train * (1 - (all_there_is - seconds) / trained))
    fits = f"; with ARGS='task.train_examples={left}' it fits" if left >= LEAST["train"] else ""
    raise InputError(
        f"BUDGET={limit} is too small: one run takes about {span(one)}, the smallest plan, {last.runs} runs, "
        f"{span(all_there_is)}{fits}"
    )


def _limit(text: str) -> tuple[float, float]:
    """Seconds and runs, infinite where they are not limited."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0 or (not match[2] and "." in match[1]):
        raise InputError(f"BUDGET={text}: give a time, as 20m or 2h, or a number of runs")
    if not match[2]:
        return math.inf, float(match[1])
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]], math.inf


def said(subject: Subject, plan: Plan, size: Size) -> list[str]:
    """What will be done, in lines."""
    ranks = dict.fromkeys(subject.units, plan.r_max)
    held = human(size.memory.peak) if size.memory else f"not planned ({size.why})"
    halving = ", then ".join(f"{stage.runs} on {stage.share:.0%}" for stage in plan.stages)
    return [
        f"{subject.model} on {subject.task} ({subject.asked.preset}): {size.train:,} training rows, {size.validation:,} "
        "of validation; the test set is not read",
        f"largest adapter: r = {plan.r_max} on {' '.join(subject.units)}, {subject.parameters(ranks):,} parameters; a "
        f"training step takes {held} of memory",
        f"{plan.runs} runs, as much training as {plan.worth:.3g} whole ones: {len(plan.grid)} learning rates from "
        f"{min(plan.grid):g} to {max(plan.grid):g} ({halving} of the examples)"
        + (f", {plan.more} beside" if plan.more else ""),
        f"{plan.looks} looks at cut updates of {len(SEEDS)} seeds; in all about {span(plan.seconds(size))}, one run at a time "
        "on this machine",
        f"a sweep of ranks 1 to {plan.r_max} on three sets of weight types would take {plan.sweep()} runs, about "
        f"{span(plan.sweep() * size.run(plan.epochs))}: this is {plan.share(size):.0%} of it",
    ]


def is_lora(config: RunConfig) -> bool:
    """Whether plain LoRA is what is asked about."""
    found = method_settings.lora(config.method)
    return found is not None and not found.dora
