"""Setups from what a user types: a model, a method's config, and fields as in a run's config."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import budget, names, suggest
from experiments.config import ModelSettings, RuntimeSettings, TrainingSettings
from experiments.measure.memory.setup import Setup
from experiments.own import quoted
from experiments.paths import user_path
from lora.config import InputError

# Fields of a run's config that change its memory, beside the method's. Batch and length have options of their own.
FIELDS = ("model.quantization", "model.dropout", "training.state_precision", "runtime.checkpointing")


def _model(model: str) -> list[str]:
    """The overrides that choose a model: a name in experiments/conf/model, a config that ships, a folder, a hub id."""
    name = model.removeprefix("asset:").removeprefix("config:")
    if name in names.shipped():
        return ["model=hub", f"model.name={name}", f"model.path='config:{name}'"]
    named = [one for one in names.options("model") if one != "hub"]
    if name in named:
        return [f"model={name}"]
    if user_path(model).is_dir() or ("/" in model and ":" not in model):
        return ["model=hub", f"model.path={quoted(model)}"]
    known = [*named, *names.shipped()]
    near = names.near(name, known)
    guess = f"did you mean {' or '.join(near)}? Else give" if near else "give"
    raise InputError(f"unknown model {model!r}: {guess} a folder, a hub id, or one of {', '.join(known)}")


@cache  # one model is planned with many methods
def _config(overrides: tuple[str, ...]) -> Any:
    try:
        with initialize_config_module("experiments.conf", version_base="1.3"):
            return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(suggest.in_one_line(error, overrides)) from error


def composed(model: str, methods: Sequence[str], fields: Sequence[str] = ()) -> list[Setup]:
    """What a run of each of the methods has with such a model, and FIELD=VALUE as for a run; sizes are for the caller.

    A field of a method is for those of the methods that have it. Raises InputError for an unknown model or method, and
    for a field that is none or that changes no memory.
    """
    for method in methods:
        if method not in names.options("method"):
            raise InputError(f"unknown method {method!r}{names.did_you_mean(method, names.options('method'))}")
    chosen = {method: (*_model(model), f"method={method}") for method in methods}
    own = {
        method: [f"method.{name}" for name in _config(chosen[method])["method"] if name != "name"] for method in methods
    }
    allowed = list(dict.fromkeys([*(name for fields in own.values() for name in fields), *FIELDS]))
    given = {field: field.partition("=")[0] for field in fields}
    for field, name in given.items():
        if name not in allowed or "=" not in field:
            raise InputError(
                f"{field} is no setting of {', '.join(methods)}: FIELD=VALUE with FIELD one of {', '.join(allowed)}"
            )
    fitting = {method: [field for field in fields if given[field] in (*own[method], *FIELDS)] for method in methods}
    return [_setup(_config((*chosen[method], *fitting[method]))) for method in methods]


def _setup(config: dict[str, Any]) -> Setup:
    ModelSettings.of(config["model"])
    runtime, training = RuntimeSettings.of(config["runtime"]), TrainingSettings.of(config["training"])
    return Setup(
        dict(config["model"]),
        budget.resolve(config)["method"],
        checkpointing=runtime.checkpointing,
        state_precision=training.state_precision,
    )
