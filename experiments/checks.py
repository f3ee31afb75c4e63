"""Settings that no run can have, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from experiments import rules, settings
from lora.config import QUANTIZATIONS, InputError

WEIGHTS = ("full", "ft_top2", "freeze", "bitfit")  # methods that train what model.quantization freezes
GROUPS = {
    "model": settings.MODEL,
    "method": settings.METHOD,
    "training": settings.TRAINING,
    "tuning": settings.TUNING,
    "runtime": settings.RUNTIME,
    "preset": settings.PRESET,
    "study": settings.STUDY,
}


def check(config: Mapping[str, Any]) -> None:
    """Raises InputError, naming the field, for a setting that is missing, unknown, or cannot work, whatever the model
    and the data are; also for one that `tuning.at` would make so."""
    _check(config)
    tried = deepcopy(dict(config))
    for key, value in config["tuning"]["at"].items():
        *groups, field = str(key).split(".")
        place: Any = tried
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or field not in place:
            raise InputError(f"tuning.at has {key}, which is no setting of this run")
        place[field] = value
    try:
        _check(tried)
    except InputError as error:
        raise InputError(f"tuning.at: {error}") from error


def _check(config: Mapping[str, Any]) -> None:
    for field, rule in settings.TOP.items():
        if field in config:
            rule.check(field, config[field])
        elif rule.required:
            raise InputError(f"{field} is missing: {rule.what.removeprefix('it ')}")
    for group, fields in GROUPS.items():
        if group not in config:
            raise InputError(f"the group {group} is missing: choose one, or leave it as it is")
        rules.check_fields(group, config[group], fields)
    task = config.get("task")
    if not isinstance(task, Mapping):
        raise InputError(f"task = {task!r}: choose one of experiments/conf/task, or task=local task.path=FILE")
    rules.check_fields("task", task, settings.task_rules(task))
    if "generation" in task:
        rules.check_fields("task.generation", task["generation"], settings.GENERATION)
    known = (*settings.ALONE, *settings.TOP)
    for field in config:
        if field not in known and config["study"]["name"] is None:
            raise InputError(f"there is no setting {str(field)!r}: there are {', '.join(known)}")
    check_quantization(config["model"].get("quantization"), config["method"])


def check_flag(name: str, value: object) -> None:
    """Raises InputError if a setting is neither true nor false."""
    rules.flag().check(name, value)


def check_quantization(kind: object, method: Mapping[str, Any]) -> None:
    """Raises InputError if `kind` is no model.quantization, or freezes what `method` trains."""
    if kind is None:
        return
    if kind not in QUANTIZATIONS:
        raise InputError(f"model.quantization = {kind}: choose from {', '.join(QUANTIZATIONS)}, or null")
    training = set(str(method["name"]).split("+")).intersection(WEIGHTS)
    if training:
        raise InputError(
            f"model.quantization = {kind} freezes the linear layers, which method {training.pop()} trains, weights or "
            "biases: choose a method that adds parameters, such as lora"
        )
