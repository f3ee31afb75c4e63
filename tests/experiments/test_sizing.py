"""Runs at once and threads of each, on made-up machines."""

from typing import Any, NamedTuple

import pytest

from experiments.config import RunConfig
from experiments.engines import sizing
from lora.config import InputError

GIB = 2**30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of so many cores and GB, on which a run is planned to take so many GB."""

    def made(cores: int, memory: int, need: float = 1.0, gpus: int = 0, card: int = 0) -> None:
        monkeypatch.setattr(sizing, "cores", lambda: cores)
        monkeypatch.setattr(sizing, "memory", lambda: memory * GIB)
        monkeypatch.setattr(sizing, "_need", lambda configs, enough: need * GIB)
        found = sizing.Card(card * GIB, need * GIB, 4.0 * GIB)
        monkeypatch.setattr(sizing, "_card", lambda configs, devices: found)
        monkeypatch.setattr(sizing, "gpus", lambda device: [str(number) for number in range(gpus)])

    return made


def config(method: str = "lora", threads: int | None = None, device: str = "auto") -> RunConfig:
    return RunConfig.of(
        {
            "model": {"name": "minilm", "path": "asset:minilm"},
            "task": {},
            "method": {"name": method},
            "training": {
                "lr": 1e-3, "head_lr": None, "epochs": 1, "batch_size": 8, "warmup_ratio": 0.0, "schedule": "linear",
                "weight_decay": 0.0, "max_grad_norm": 1.0,
            },
            "runtime": {
                "device": device, "precision": "auto", "threads": threads, "eval_batch_size": 64,
                "keep_weights": "auto", "checkpoint_every": None, "checkpointing": False,
            },
            "seed": 0,
            "results_dir": "results",
        }
    )  # fmt: skip


def configs(threads: int | None = None) -> list[RunConfig]:
    return [config(threads=threads)]


def sized(jobs: object, grid: int, threads: int | None = None) -> tuple[int, int]:
    found = sizing.size(jobs, configs(threads), grid)
    return found.workers, found.threads


def test_small_runs_take_a_core_each(machine: Any) -> None:
    machine(16, 64)
    assert sized("auto", 21) == (16, 1)
    assert sized("auto", 5) == (5, 3), "the cores that are left go to the runs' threads"
    assert sized("auto", 1) == (1, 16), "one run has all cores"


def test_threads_do_not_depend_on_jobs(machine: Any) -> None:
    machine(16, 64)
    assert {sized(jobs, 4)[1] for jobs in ("auto", 1, 2, 3, 4)} == {4}
    machine(2, 24)
    assert {sized(jobs, 7)[1] for jobs in ("auto", 1, 2)} == {1}


def test_memory_bounds_the_runs_at_once_and_gives_their_cores_to_the_others(machine: Any) -> None:
    machine(16, 64, need=20)
    assert sized("auto", 21) == (2, 8)
    with pytest.raises(
        InputError, match=r"JOBS=4\): so many runs need about 80 GB, this machine has 64: 2 at once fit"
    ):
        sized(4, 21)


def test_threads_of_the_settings_leave_fewer_workers(machine: Any) -> None:
    machine(16, 64)
    assert sized("auto", 21, threads=4) == (4, 4)
    assert sized(8, 21, threads=4) == (8, 4)


def test_each_gpu_has_a_worker(machine: Any) -> None:
    machine(16, 64, need=20, gpus=4, card=40)
    found = sizing.size("auto", configs(), 21)
    assert (found.workers, found.threads, found.gpus) == (4, 4, ["0", "1", "2", "3"])
    assert sizing.size("auto", configs(), 2).workers == 2
    machine(16, 64, need=60, gpus=4, card=40)
    assert sized("auto", 21) == (4, 4), "a plan is no measurement: one is tried"


def test_small_runs_share_a_gpu_by_its_memory_the_machines_and_its_cores(machine: Any) -> None:
    machine(16, 64, need=4, gpus=2, card=16)
    assert sized("auto", 21) == (6, 2), "three a GPU: 0.85 of its memory may be planned for"
    assert sized("auto", 5) == (5, 3)
    assert sized(4, 21) == (4, 4)
    assert sized(1, 21) == (1, 16)
    machine(4, 64, need=4, gpus=1, card=140)
    assert sized("auto", 21) == (4, 1), "a core each"
    machine(16, 24, need=4, gpus=1, card=140)
    assert sized("auto", 21) == (5, 3), "4 GB of the machine each"
    with pytest.raises(
        InputError,
        match=r"JOBS=40\): a run needs about 4 GB of a GPU, of which 140 are free: 29 at once fit on each of 1",
    ):
        sized(40, 50)


def test_what_a_run_takes_of_a_card_is_planned_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Pool:
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None: ...

        def map(self, compute: Any, given: Any) -> list[Any]:
            asked.extend([compute, list(given)])
            return [30 * GIB, 20 * GIB] if compute is sizing._free else [Plan(peak=2 * GIB, weights=GIB)]

    class Plan(NamedTuple):
        peak: int
        weights: int

    monkeypatch.setattr(sizing.CONTEXT, "Pool", lambda processes: Pool())
    small, full = config(), config("full")
    found = sizing._card([small, full], ["0", "1"])
    assert found == (20 * GIB, sizing.CUDA + 4 * GIB, 2 * sizing.PROCESS + GIB)
    assert asked == [sizing._free, [0, 1], sizing._on_cuda, [full]]


@pytest.mark.parametrize("jobs", [0, -1, 1.5, "two", True, None])
def test_jobs_that_are_none(jobs: object, machine: Any) -> None:
    machine(2, 24)
    with pytest.raises(InputError, match=r"engine\.jobs = .* it must be auto, or a whole number of at least 1"):
        sized(jobs, 3)


def test_what_surely_fits_is_not_planned_and_the_rest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    small, full = config(device="cpu"), config("full", device="cpu")
    rough = sizing._need([small], 100 * GIB)
    assert sizing.PROCESS < rough < 4 * GIB
    asked: list[Any] = []

    class Pool:
        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *_: object) -> None: ...

        def map(self, plan: Any, given: Any) -> list[float]:
            asked.extend(given)
            return [7.0 for _ in given]

    monkeypatch.setattr(sizing.CONTEXT, "Pool", lambda processes: Pool())
    assert sizing._need([small, full, small], 1 * GIB) == 7.0
    assert asked == [full], "of each model the run that trains most"
