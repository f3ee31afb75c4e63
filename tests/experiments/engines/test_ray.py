"""engine=ray on a Ray of this machine; skipped where Ray, an optional extra, is not installed."""

import sys
from pathlib import Path
from typing import Any

import pytest
import scenarios
from omegaconf import OmegaConf
from scenarios import Command

import experiments.engines.ray as module
from experiments.engines.ray import Ray
from lora.config import InputError

CONF = Path(module.__file__).parents[1] / "conf" / "engine" / "ray.yaml"
RAY = ["engine=ray", "engine.jobs=2"]


def settings(**changes: Any) -> dict[str, Any]:
    return dict(OmegaConf.load(CONF)) | changes


@pytest.fixture
def on_ray(command: Command) -> Command:
    pytest.importorskip("ray", reason="ray is not installed")
    return command


def test_tuned_rates_a_failing_run_and_a_killed_worker(on_ray: Command) -> None:
    scenarios.tuned_with_one_failing_and_one_killed(on_ray, *RAY)


def test_a_run_that_is_lost_twice(on_ray: Command) -> None:
    scenarios.a_run_that_is_lost_twice(on_ray, *RAY)


def test_ctrl_c_ends_ray_and_its_workers(on_ray: Command) -> None:
    scenarios.an_interrupted_sweep(on_ray, *RAY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "127.0.0.1:1"}, "Ray cannot be reached at engine.address = 127.0.0.1:1: "),
        ({"address": "ray://127.0.0.1:1"}, "Ray cannot be reached at engine.address = ray://127.0.0.1:1: "),
        ({"cpus": 4096}, "engine.cpus = 4096, engine.gpus = 0: no node of Ray has room for such a run"),
        ({"gpus": 512}, "engine.cpus = 1, engine.gpus = 512: no node of Ray has room for such a run"),
    ],
)
def test_what_cannot_be_reached_or_is_not_there(changes: dict[str, Any], message: str) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(InputError) as refused:
        Ray(settings(**changes))
    assert message in str(refused.value)
    assert not ray.is_initialized()


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install 'lora-lab\\[ray\\]'"):
        Ray(settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jobs": 0}, "engine.jobs = 0"),
        ({"cpus": 0.5}, "engine.cpus = 0.5"),
        ({"gpus": -1}, "engine.gpus = -1: it must be a positive number, auto or 0"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        Ray(settings(**changes))
    assert message in str(refused.value)
