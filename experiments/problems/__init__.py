"""What is trained and scored, one file a kind: classification, language. `base` says what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.config import RunConfig
from experiments.models import Runtime
from experiments.problems.base import Problem
from experiments.tasks import TextData


def load(config: RunConfig, data: Any, runtime: Runtime) -> Problem:
    """The problem of a run and its task's data. Raises InputError as the kinds do."""
    # Each with its own metrics: up to a second of imports that the other does not need.
    kind: Callable[..., Problem]
    if isinstance(data, TextData):
        from experiments.problems.language import Language

        kind = Language
    else:
        from experiments.problems.classification import Classification

        kind = Classification
    return kind(config.model, config.task, config.method, data, runtime, config.runtime.eval_batch_size)
