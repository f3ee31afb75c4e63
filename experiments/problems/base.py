"""What every problem has: a model, its tokenizer and a task's rows, a loss of some rows, and scores on a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.items import Items
from experiments.models import Runtime

Rows = list[dict[str, Any]]  # tokenized examples: input_ids, labels, …


class Evaluated(NamedTuple):
    """Scores by name, `loss` among them; where a model has written text, each input with what it wrote; and what became
    of each item, in the order of the task."""

    scores: dict[str, float]
    outputs: list[dict[str, Any]]
    items: Items


class Problem(ABC):
    """A model that learns a task. `rows` has the splits train, validation and test."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    runtime: Runtime
    heads: list[str]  # modules that the task adds to the pretrained body
    rows: dict[str, Rows]
    metric: str  # the main metric of the test split
    validation_metric: str  # what a learning rate is chosen by: the main metric, or `loss`
    majority: float | None  # the share of the commonest class among validation's; None where there are no classes

    @abstractmethod
    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss, a scalar, of a batch of rows, over what `weight` counts."""

    @abstractmethod
    def weight(self, rows: Rows) -> int:
        """How many terms the mean loss of these rows has: examples, or target tokens."""

    @abstractmethod
    def evaluate(self, split: str, generate: bool = True) -> Evaluated:
        """Loss and metrics on a split, without those of generated text if not `generate`. Leaves the model in eval
        mode."""

    def backward(self, rows: Rows, batch_size: int) -> None:
        """Add the gradients of the loss on batches of `rows` to the parameters."""
        for first in range(0, len(rows), batch_size):
            self.loss(rows[first : first + batch_size]).backward()  # type: ignore[no-untyped-call]
