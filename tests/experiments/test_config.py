"""The settings of a run as types."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

import experiments
from experiments import method_settings
from experiments.config import ModelSettings, RunConfig, RuntimeSettings, TrainingSettings
from experiments.engines import Engine, Outcome
from experiments.method_settings import METHODS, BAdam, Full, GaLore, LoRA, Prompt
from experiments.store import definition, run_id
from lora.config import InputError

HERE = Path(experiments.__file__).parent
GIVEN: dict[str, Any] = {
    "model": {"name": "m", "path": "org/m", "quantization": "nf4"},
    "task": {"name": "t", "family": "glue"},
    "method": {"name": "lora", "r": 4},
    "training": {
        "lr": 1e-3, "head_lr": None, "epochs": 1, "batch_size": 8, "warmup_ratio": 0.1, "schedule": "linear",
        "weight_decay": 0.0, "max_grad_norm": 1.0,
    },
    "runtime": {
        "device": "auto", "precision": "auto", "threads": None, "eval_batch_size": 64, "keep_weights": "auto",
        "checkpoint_every": None, "checkpointing": False, "compile": False,
    },
    "seed": 3,
    "results_dir": "results",
    "engine": {"name": "local"},
}  # fmt: skip


def test_a_run_has_what_it_was_given() -> None:
    run = RunConfig.of(GIVEN)
    for group in ("model", "training", "runtime"):
        found = dataclasses.asdict(getattr(run, group))
        assert {name: found[name] for name in GIVEN[group]} == GIVEN[group]
        assert {value for name, value in found.items() if name not in GIVEN[group]} <= {None}
    assert (run.seed, run.results_dir, run.method["r"], run.given["engine"]) == (3, "results", 4, {"name": "local"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.seed = 4  # type: ignore[misc]


def test_a_run_reaches_another_process_as_it_is() -> None:
    run = RunConfig.of(GIVEN)
    there = pickle.loads(pickle.dumps(run))
    assert there == run and run_id(definition(there.given)) == run_id(definition(GIVEN))


class Nowhere(Engine):
    """An engine that computes nothing."""

    slots, threads = 1, 5

    def submit(self, ticket: int, config: RunConfig) -> None: ...
    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        return []

    def close(self) -> None: ...


@pytest.mark.parametrize(("asked", "found"), [(None, 5), (2, 2)])
def test_an_engine_says_where_a_run_is_computed_but_not_what_it_is(asked: int | None, found: int) -> None:
    run = RunConfig.of(GIVEN | {"runtime": GIVEN["runtime"] | {"threads": asked}})
    prepared = Nowhere().prepared(run)
    assert prepared.runtime.threads == found and Path(prepared.results_dir) == Path("results").absolute()
    assert run_id(definition(prepared.given)) == run_id(definition(GIVEN))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ModelSettings, {"path": None}, "model.path = None: it must be a text"),
        (ModelSettings, {"dropout": 1}, "model.dropout = 1: it must be a number from 0 to below 1, or null"),
        (ModelSettings, {"size": 1}, "model has no field 'size': it has name, path, dropout, quantization"),
        (TrainingSettings, {"epochs": 0}, "training.epochs = 0: it must be a whole number of at least 1"),
        (TrainingSettings, {"schedule": "cosin"}, "training.schedule = 'cosin': choose from linear, cosine"),
        (RuntimeSettings, {"threads": 0}, "runtime.threads = 0: it must be a whole number of at least 1 and at most"),
    ],
)
def test_bounds_are_the_types(kind: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        kind.of(GIVEN[kind.group] | changes)
    assert message in str(raised.value)
    missing = next(iter(GIVEN[kind.group]))
    with pytest.raises(InputError, match=rf"{kind.group}\.{missing} is missing"):
        kind.of({name: value for name, value in GIVEN[kind.group].items() if name != missing})


def test_every_method_has_settings_and_every_config_is_of_them() -> None:
    files = {path.stem for path in (HERE / "methods").glob("[!_]*.py")}
    assert files == set(METHODS)
    for path in (HERE / "conf" / "method").glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for base in config.get("defaults", []):
            if base != "_self_":
                above = yaml.safe_load((path.parent / f"{base}.yaml").read_text(encoding="utf-8"))
                config["method"] = above["method"] | config["method"]
        config["method"] |= {"alpha": 16} if "alpha" in config["method"] else {}
        assert set(method_settings.read(config["method"])) == set(config["method"]["name"].split("+")), path


def test_parts_of_a_combination_have_their_own_settings() -> None:
    found = method_settings.read({"name": "lora+prefix_embed", "r": {"q": 2, "v": 4}, "l_p": 3, "l_i": 0})
    assert found == {"lora": LoRA(r={"q": 2, "v": 4}), "prefix_embed": Prompt(l_p=3, l_i=0)}


def test_full_fine_tuning_has_the_settings_of_its_optimizer() -> None:
    assert method_settings.optimizer({"name": "full", "optimizer": None}) is None
    galore = {"name": "full", "optimizer": "galore", "r": 4, "refresh": 2, "scale": 0.5}
    assert method_settings.read(galore) == {"full": Full(optimizer=GaLore(r=4, refresh=2, scale=0.5))}
    badam = {"name": "full", "optimizer": "badam", "switch": 4, "order": "random", "block": 1}
    assert method_settings.optimizer(badam) == BAdam(switch=4, order="random", block=1)
    assert method_settings.optimizer({"name": "lora", "r": 4}) is None


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (5, "method = 5: it must be a group of settings"),
        ({"r": 8}, "method.name = None: it must be a text"),
        ({"name": "full", "optimizer": []}, "method.optimizer = []: choose galore, badam"),
        ({"name": "full", "optimizer": "galore", "r": 4, "refresh": 2}, "method.scale is missing"),
        ({"name": "lora", "dora": "yes"}, "method.dora = 'yes': it must be true or false"),
        ({"name": "lora", "layers": 3}, "method.layers = 3: it must be a list"),
    ],
)
def test_settings_that_no_method_has(method: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        method_settings.read(method)
    assert message in str(raised.value)
