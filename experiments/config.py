"""The settings of a run as types: made once from Hydra's resolved config, then handed on as they are.

A field says what it may be (`experiments.rules`), and nothing else does; one with a default may be absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from experiments.rules import Rule, below_one, check_fields, choice, flag, positive, share, text, whole
from lora.config import QUANTIZATIONS

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
THREADS = 1024  # OpenMP ends the program where the system does not start as many


def setting(rule: Rule, **default: Any) -> Any:
    """A field of a group of settings."""
    return field(metadata={"rule": rule}, **default)


class Group:
    """Settings of one group, `group` in Hydra's config."""

    group: str

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """What each field may be; one with a default may be absent."""
        found: dict[str, Rule] = {}
        for one in dataclasses.fields(cls):  # type: ignore[arg-type]
            rule: Rule = one.metadata["rule"]
            found[one.name] = rule if one.default is dataclasses.MISSING else rule.optional()
        return found

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The settings of a mapping. Raises InputError, naming the field, for one that is missing, unknown, or not what
        it may be."""
        check_fields(cls.group, given, cls.rules())
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Group):
    """The pretrained model: what it is called, and where it is (a hub id, a folder, `asset:…`, `config:…`)."""

    group = "model"
    name: str = setting(text())
    path: str = setting(text())
    dropout: float | None = setting(below_one().or_null(), default=None)
    quantization: str | None = setting(choice(*QUANTIZATIONS).or_null(), default=None)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Group):
    """How it is trained. lr is a number when a run is computed; null where that changes nothing."""

    group = "training"
    lr: float = setting(positive().or_word("tuned"))
    head_lr: float | None = setting(positive().or_null())
    epochs: int = setting(whole())
    batch_size: int = setting(whole())
    accumulate: int | None = setting(whole().or_null(), default=None)
    warmup_ratio: float = setting(share())
    warmup_steps: int | None = setting(whole().or_null(), default=None)
    schedule: str = setting(choice(*SCHEDULES))
    weight_decay: float = setting(share())
    max_grad_norm: float = setting(positive())
    label_smoothing: float | None = setting(below_one().or_null(), default=None)
    state_precision: str | None = setting(choice("bf16").or_null(), default=None)
    dropout_masks: str | None = setting(choice("fast").or_null(), default=None)


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings(Group):
    """Where and how a run is computed. Of these only a precision that is asked for defines the result."""

    group = "runtime"
    device: str = setting(choice("auto", "cpu", "cuda", "mps"))
    precision: str = setting(choice("auto", "bf16", "fp32"))
    threads: int | None = setting(whole(1, THREADS).or_null())
    eval_batch_size: int = setting(whole())
    keep_weights: str = setting(choice("auto", "all", "none"))
    checkpoint_every: int | None = setting(whole().or_null())
    checkpointing: bool = setting(flag())
    compile: bool = setting(flag(), default=False)
    parallel: str | None = setting(choice("ddp", "fsdp").or_null(), default=None)
    offload: str | None = setting(choice("auto").or_null(), default=None)


@dataclass(frozen=True)
class RunConfig:
    """A run. Which fields a task and a method have is theirs to say.

    `given` is the resolved config that it was made from: a run_id is a hash of a part of it, as it was written.
    """

    model: ModelSettings
    task: Mapping[str, Any]
    method: Mapping[str, Any]
    training: TrainingSettings
    runtime: RuntimeSettings
    seed: int
    results_dir: str
    tracker: str | None
    given: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The run of a resolved config. Raises InputError as `Group.of`."""
        return cls(
            ModelSettings.of(given["model"]),
            given["task"],
            given["method"],
            TrainingSettings.of(given["training"]),
            RuntimeSettings.of(given["runtime"]),
            given["seed"],
            given["results_dir"],
            given.get("tracker"),
            given,
        )
