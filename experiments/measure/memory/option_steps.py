"""Full fine-tuning with options that cost nothing in quality: what each takes at the peak, and how long."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from experiments.compute import checkpoint_activations
from experiments.measure.memory import training_step
from experiments.measure.memory.measured_step import Step, measure
from experiments.measure.memory.setup import Setup

NONE = "none"  # the suite as it is: fused AdamW with fp32 moments, all activations kept


class Variant(NamedTuple):
    """Fields of the setup that an option changes, and options of torch's AdamW."""

    setup: Mapping[str, Any] = {}
    adamw: Mapping[str, Any] = {}


VARIANTS = {
    NONE: Variant(),
    "checkpointing": Variant({"checkpointing": True}),
    "bf16 moments": Variant({"state_precision": "bf16"}),
    "AdamW foreach": Variant(adamw={"foreach": True}),
    "AdamW for-loop": Variant(adamw={"foreach": False, "fused": False}),
}


class Timed(NamedTuple):
    """Seconds of one step."""

    option: str
    round: int
    seconds: float


def peak(job: tuple[Setup, str]) -> int:
    """Allocated bytes at the peak of a step with an option. To be called as `measure`."""
    setup, option = job
    variant = VARIANTS[option]
    return measure(dataclasses.replace(setup, **variant.setup), variant.adamw).allocated


def seconds(job: tuple[Setup, int]) -> list[Timed]:
    """So many rounds, in each of which every option takes a step, in an order drawn anew. One before is not counted.

    All train the same weights; each has its own optimizer, with its states. Raises InputError as a Step.
    """
    setup, rounds = job
    where = training_step.runtime(setup, setup.device)
    plain = Step(setup, where)
    optimizers = {option: _optimizer(plain, setup, variant) for option, variant in VARIANTS.items()}
    return list(_rounds(plain, optimizers, rounds))


def _optimizer(plain: Step, setup: Setup, variant: Variant) -> torch.optim.Optimizer:
    if variant.adamw:
        parameters = [own for group in plain.optimizer.param_groups for own in group["params"]]
        return torch.optim.AdamW(parameters, weight_decay=0.0, **variant.adamw)
    if "state_precision" in variant.setup:
        own = dataclasses.replace(setup, **variant.setup)
        return training_step.optimizer(plain.problem, own, training_step.method(own))
    return plain.optimizer


def _rounds(plain: Step, optimizers: Mapping[str, torch.optim.Optimizer], rounds: int) -> Iterator[Timed]:
    model, orders = plain.problem.model, random.Random(0)
    for index in range(-1, rounds):
        for option in orders.sample(list(optimizers), len(optimizers)):
            plain.optimizer = optimizers[option]
            if VARIANTS[option].setup.get("checkpointing"):
                checkpoint_activations(model)
            else:
                model.activation_checkpointing_disable()
            started = time.perf_counter()
            plain()
            if plain.problem.runtime.device.type == "cuda":
                torch.cuda.synchronize()
            if index >= 0:
                yield Timed(option, index, time.perf_counter() - started)
