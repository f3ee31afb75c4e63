"""How many runs at once, with how many threads each: by cores, by the memory that a run needs, and by GPUs.

Threads of a run are decided by the machine and the grid alone: cores / (runs that could be computed at once). How many
*are*, `engine.jobs`, does not count, since sums in another number of threads round otherwise: a run is the same, bit
for bit, whatever `engine.jobs` is. What a GPU computes does not depend on threads: there the cores are shared out.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from experiments import assets
from experiments.config import RunConfig
from experiments.kinds import kind_of
from experiments.paths import user_path
from lora.errors import InputError, is_count

if TYPE_CHECKING:
    from experiments.measure.memory.setup import Plan

CONTEXT = multiprocessing.get_context("spawn")  # a fork of a process with threads, or with CUDA, may hang
GIB = 2**30
CUDA = 1.0 * GIB  # of a GPU, which a process takes for its context and libraries
# In place of a method that trains nothing, whose passes take less.
LITTLE = {"name": "lora", "r": 1, "alpha": 1, "weight_types": "q"}
PROCESS = 1.2 * GIB  # of a worker before it has loaded a model: Python, torch, transformers, datasets
SHARE = 0.85  # of the memory may be planned for; the rest is the system's, and the file cache's
ROUGH = 20  # a run takes less than so many times the bytes of its weights on disk: what fits so needs no plan
SPREAD = 2.0  # resident memory beside what the planner counts: the allocator's gaps, evaluation, data


class Size(NamedTuple):
    """Runs at once, threads of each, and devices of CUDA_VISIBLE_DEVICES for the workers (none without GPUs)."""

    workers: int
    threads: int
    gpus: list[str]


class Card(NamedTuple):
    """Bytes: what is free on the GPU that has least, and what a run needs of a GPU, and of the machine beside it."""

    free: float
    need: float
    host: float


def cores() -> int:
    """Processors that this process may use: of the machine, its affinity, and a container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count


def memory() -> int:
    """Bytes of memory that this process may use: of the machine, or a container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def gpus(device: str) -> list[str]:
    """The CUDA devices that runs with `runtime.device` may use. Asks torch only where the system has such a device."""
    here = os.environ.get("CUDA_VISIBLE_DEVICES") or any(Path("/dev").glob("nvidia[0-9]*"))
    if device not in ("auto", "cuda") or not here:
        return []
    import torch

    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return shown or [str(number) for number in range(torch.cuda.device_count())]


def size(jobs: object, configs: Sequence[RunConfig], grid: int) -> Size:
    """The size of the local engine for these runs, of a grid of so many runs.

    jobs: `auto`, or a number. Raises InputError if it is neither, and if so many runs need more memory than there is.
    """
    asked: int | None = None
    if jobs != "auto":
        if not is_count(jobs):
            raise InputError(f"engine.jobs = {jobs!r} (JOBS=): it must be auto, or a whole number of at least 1")
        asked = jobs
    devices = gpus(configs[0].runtime.device)
    if devices:
        return _on_gpus(asked, configs, grid, devices)
    there, here = memory(), cores()
    fit = min(here, grid)
    if fit > 1:
        fit = max(1, min(fit, int(SHARE * there / _need(configs, SHARE * there / fit))))
    if asked and asked > fit:
        need = _need(configs, there / asked)
        if asked * need > there:
            raise InputError(
                f"engine.jobs = {asked} (JOBS={asked}): so many runs need about {asked * need / GIB:.0f} GB, this "
                f"machine has {there / GIB:.0f}: {fit} at once fit"
            )
    given = [config.runtime.threads for config in configs if config.runtime.threads is not None]
    threads = max(given, default=max(1, here // fit))
    return Size(min(asked or max(1, min(fit, here // threads)), grid), threads, [])


def _on_gpus(asked: int | None, configs: Sequence[RunConfig], grid: int, devices: list[str]) -> Size:
    """One run a GPU, or as many small ones as its free memory, the machine's, and the cores allow."""
    workers = min(asked or len(devices), grid)
    if min(asked or grid, grid) > len(devices):
        card = _card(configs, devices)
        fit = max(1, int(SHARE * card.free / card.need))
        if asked and workers > fit * len(devices):
            raise InputError(
                f"engine.jobs = {asked} (JOBS={asked}): a run needs about {card.need / GIB:.0f} GB of a GPU, of which "
                f"{card.free / GIB:.0f} are free: {fit} at once fit on each of {len(devices)}"
            )
        if not asked:
            workers = max(workers, min(fit * len(devices), cores(), int(SHARE * memory() / card.host), grid))
    return Size(workers, max(1, cores() // workers), devices)


def _card(configs: Sequence[RunConfig], devices: list[str]) -> Card:
    """What is free on the GPUs, and what the largest of these runs takes of one."""
    with CONTEXT.Pool(1) as pool:  # another process: this one is to have no memory of a GPU, nor torch
        free = pool.map(_free, range(len(devices)))
        plans = pool.map(_on_cuda, _largest(configs))
    most, weights = max(plan.peak for plan in plans), max(plan.weights for plan in plans)
    return Card(min(free), CUDA + SPREAD * most, 2 * PROCESS + weights)


def _free(number: int) -> int:
    import torch

    return torch.cuda.mem_get_info(number)[0]


def _on_cuda(config: RunConfig) -> Plan:
    return plan(config, "cuda")


def _largest(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Of each model the run that trains most."""
    models = {(config.model.path, config.model.quantization): config for config in configs}
    for config in configs:
        if config.method["name"] in ("full", "ft_top2", "freeze"):
            models[config.model.path, config.model.quantization] = config
    return list(models.values())


def _need(configs: Sequence[RunConfig], enough: float) -> float:
    """Bytes that a run takes, of the largest of these: a rough bound if that is not above `enough`, else planned."""
    largest = _largest(configs)
    bound = max(_rough(config.model.path) for config in largest)
    if bound <= enough:
        return bound
    with CONTEXT.Pool(1) as pool:  # another process: the parent does not load torch
        return max(pool.map(planned, largest))


def _rough(path: str) -> float:
    """A bound on the bytes of a run, from the size of the weights on disk; without a bound where they are not here."""
    name = path.removeprefix("asset:")
    folder = user_path(path) if name == path else assets.fetch(name)
    weights = [file.stat().st_size for file in folder.rglob("*") if file.suffix in (".safetensors", ".bin")]
    return PROCESS + ROUGH * sum(weights) if weights else float("inf")


def planned(config: RunConfig) -> float:
    """Bytes of the machine's memory that a run is planned to take, process included."""
    return PROCESS + SPREAD * plan(config, "cpu").peak


def plan(config: RunConfig, device: str) -> Plan:
    """What a step of a run takes on a device of this kind, cpu or cuda. Raises InputError as `planner.plan`."""
    from experiments.measure.memory import planner
    from experiments.measure.memory.setup import Setup
    from experiments.models import choose_runtime

    runtime, training = choose_runtime(device, config.runtime.precision), config.training
    length = int(config.task["max_length"])
    setup = Setup(
        asdict(config.model),
        LITTLE if config.method["name"] == "frozen" else config.method,
        max(1, training.batch_size // (training.accumulate or 1)),
        length,
        targets=max(1, length - 1) if kind_of(config.task) == "pairs" else None,
        precision="bf16" if "bfloat16" in str(runtime.dtype) else "fp32",
        checkpointing=config.runtime.checkpointing,
        state_precision=training.state_precision,
        device=device,
    )
    return planner.plan(setup)
