"""The studies of Section 7 are about the same runs, which other studies have too."""

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from grid import job_config, sweep_size
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.store import definition, run_id

RANKS = ("subspace", "amplification", "w_vs_delta")
SQL = "model=smollm2 task=text2sql"


@pytest.fixture(autouse=True, scope="module")
def conf() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        yield


def study(name: str, preset: str) -> DictConfig:
    return compose("config", [f"study={name}", f"preset={preset}"], return_hydra_config=True)


def jobs(name: str, preset: str, *user: str) -> list[list[str]]:
    """The overrides of each run, as the study's sweeper and the user's words make them."""
    settings = OmegaConf.to_container(study(name, preset).hydra.sweeper, resolve=True)
    assert isinstance(settings, dict)
    module, _, kind = settings.pop("_target_").rpartition(".")
    sweeper = getattr(importlib.import_module(module), kind)(**settings)
    params = [f"{key}={value}" for key, value in settings["params"].items()]
    overrides = OverridesParser.create().parse_overrides([*params, *user])
    return [job for batch in sweeper.split_arguments(overrides, None) for job in batch]


@functools.cache
def runs(name: str, preset: str, *parts: str) -> dict[str, dict[str, Any]]:
    """The configs of a study's runs of seed 0 by their ids, those whose overrides have all of `parts`."""
    found = {}
    for job in jobs(name, preset):
        if {"seed=0", *parts} <= set(job):
            config = job_config(f"study={name}", f"preset={preset}", *job)
            content: Any = OmegaConf.to_container(config, resolve=True)
            found[run_id(definition(content))] = content
    return found


def test_sizes() -> None:
    sizes = {name: {preset: sweep_size(study(name, preset)) for preset in ("quick", "desk", "desk1")} for name in RANKS}
    # Eight seeds of MiniLM at two places, three of SmolLM2.
    assert sizes["subspace"] == {"quick": 2 * 2, "desk": 2 * (2 * 8 + 3), "desk1": 3 * 2 * 3}
    assert (
        sizes["amplification"] == sizes["w_vs_delta"] == {"quick": 3 * 2, "desk": 3 * (2 * 8 + 3), "desk1": 3 * 3 * 3}
    )
    assert sweep_size(study("spectrum", "desk")) == 7 * (2 * 5 + 3)
    assert len(jobs("spectrum", "desk1")) == 3 * 7 * 3


@pytest.mark.parametrize("preset", ["quick", "desk"])
def test_all_of_them_are_about_the_runs_of_the_spectrum_study(preset: str) -> None:
    largest = set(runs("spectrum", preset))
    for name in RANKS:
        assert set(runs(name, preset)) <= largest


def test_runs_are_shared_with_other_studies() -> None:
    ablation, subspace = runs("rank_ablation", "quick"), runs("subspace", "quick")
    assert len(set(ablation) & set(subspace)) == 2, "r = 8 and 64 of one seed"
    table15 = [runs("table15", "desk", "task=text2sql", method) for method in ("method=lora", "method=full")]
    sql = {key: run for key, run in runs("spectrum", "desk").items() if run["task"]["name"] == "text2sql"}
    shared = [run["method"].get("r") for key, run in sql.items() if any(key in found for found in table15)]
    assert sorted(map(str, shared)) == ["1", "64", "8", "None"], "what table15 has"


def test_learning_rates() -> None:
    rates = {
        (run["task"]["name"], run["method"]["name"]): run["training"]["lr"]
        for run in runs("spectrum", "desk1").values()
    }
    assert {run["training"]["lr"] for run in runs("spectrum", "desk").values()} == {"tuned"}
    assert rates["rotten_tomatoes", "lora"] == 1e-3 and rates["reuters_r8", "lora"] == 3e-3
    assert rates["rotten_tomatoes", "full"] == rates["reuters_r8", "full"] == "tuned"
    chosen = study("table15", "desk1").chosen.desk1.text2sql
    assert (rates["text2sql", "lora"], rates["text2sql", "full"]) == (chosen.lora, chosen.full)
    assert {run["training"]["lr"] for run in runs("amplification", "quick").values()} == {3e-3}


def test_all_types_are_those_that_the_model_has() -> None:
    sets = {
        (run["model"]["name"], run["method"]["weight_types"])
        for run in runs("spectrum", "desk").values()
        if run["method"]["name"] == "lora"
    }
    assert sets == {
        ("minilm", "q+v"), ("minilm", "q+k+v+o+up+down"), ("smollm2", "q+v"), ("smollm2", "q+k+v+o+up+gate+down"),
    }  # fmt: skip


@pytest.mark.parametrize("words", [["task=bbc_news"], ["model=roberta_base"], ["model=minilm", "task=bbc_news"]])
def test_the_users_model_or_task_takes_the_place_of_all(words: list[str]) -> None:
    mine = jobs("amplification", "desk", *words)
    assert len(mine) == 3 * 8
    assert all(set(words) <= set(job) and not any("smollm2" in part for part in job) for job in mine)
    config = compose("config", ["study=amplification", "preset=desk", "task=bbc_news"])
    assert config.training.lr == "tuned", "its rate is not known"
    assert OmegaConf.to_object(config.tuning.at) == {} and list(config.tuning.lr_grid) == [3e-4, 1e-3, 3e-3]
    config = compose("config", ["study=amplification", "preset=desk1", "task=bbc_news"])
    assert config.training.lr == "tuned", "its rate is not known"
    assert OmegaConf.to_object(config.tuning.at) == {"method.r": 8, "seed": 0}
    assert list(config.tuning.lr_grid) == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]


def test_places_can_be_chosen() -> None:
    place = f"hydra.sweeper.places=['{SQL}']"
    config = compose("config", ["study=amplification", "preset=desk", place], return_hydra_config=True)
    assert sweep_size(config) == 3 * 8
