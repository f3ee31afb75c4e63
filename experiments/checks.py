"""Settings that no run can have, found before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora.config import QUANTIZATIONS, InputError

# Those of transformers.SchedulerType that need no settings of their own.
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
WEIGHTS = ("full", "ft_top2", "freeze", "bitfit")  # methods that train what model.quantization freezes


def check(config: Mapping[str, Any]) -> None:
    """Raises InputError, naming the field, for settings of training, tuning, runtime, quantization that cannot work."""
    training, tuning = config["training"], config["tuning"]
    check_quantization(config["model"].get("quantization"), config["method"])
    if training["lr"] != "tuned":
        check_number("training.lr", training["lr"], or_else=", or tuned")
    if training["head_lr"] is not None:
        check_number("training.head_lr", training["head_lr"], or_else=", or null")
    check_number("training.max_grad_norm", training["max_grad_norm"])
    for field in ("epochs", "batch_size"):
        check_whole(f"training.{field}", training[field], 1)
    for field in ("warmup_ratio", "weight_decay"):
        if not _is_number(training[field]) or not 0 <= training[field] <= 1:
            raise InputError(f"training.{field} = {training[field]!r}: it must be a number between 0 and 1")
    for field in ("accumulate", "warmup_steps"):
        if training.get(field) is not None:
            check_whole(f"training.{field}", training[field], 1)
    smoothing = training.get("label_smoothing")
    if smoothing is not None and (not _is_number(smoothing) or not 0 <= smoothing < 1):
        raise InputError(f"training.label_smoothing = {smoothing!r}: it must be a number from 0 to below 1, or null")
    if training["schedule"] not in SCHEDULES:
        raise InputError(f"training.schedule = {training['schedule']!r}: choose from {', '.join(SCHEDULES)}")
    check_flag("runtime.checkpointing", config["runtime"]["checkpointing"])
    check_whole("seed", config["seed"], 0)
    if not isinstance(tuning["lr_grid"], list) or not tuning["lr_grid"]:
        raise InputError(f"tuning.lr_grid = {tuning['lr_grid']!r}: it must be a list of numbers, e.g. [1e-3,3e-3]")
    for lr in tuning["lr_grid"]:
        check_number("tuning.lr_grid", lr)
    check_whole("tuning.extend", tuning["extend"], 0)


def check_flag(name: str, value: object) -> None:
    """Raises InputError if a setting is neither true nor false."""
    if not isinstance(value, bool):
        raise InputError(f"{name} = {value!r}: it must be true or false")


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_number(name: str, value: Any, or_else: str = "") -> None:
    """Raises InputError if a setting is no positive number; `or_else` says what else it may be."""
    if not _is_number(value) or value <= 0:
        raise InputError(f"{name} = {value!r}: it must be a positive number{or_else}")


def check_whole(name: str, value: Any, smallest: int) -> None:
    """Raises InputError if a setting is no whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise InputError(f"{name} = {value!r}: it must be a whole number of at least {smallest}")
