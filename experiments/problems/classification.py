"""Classification and regression: a head of the task's own on a pretrained body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from experiments import device, methods, parallel
from experiments.collapse import majority
from experiments.config import ModelSettings
from experiments.items import Items
from experiments.metrics import label_metrics
from experiments.models import Runtime, check_tokens, head_modules, load_classifier
from experiments.problems.base import Evaluated, Problem, Rows
from experiments.tasks import SPLITS, TaskData
from lora.config import InputError

SECOND = "second_test"  # a split beside SPLITS, where the data have it


def tokenize(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Rows of input_ids, attention_mask (and token_type_ids) and labels, cut at `max_length` tokens."""
    if not len(data):  # tokenizers read no empty list
        return []
    texts = [data["text"][:], data["text_pair"][:]] if "text_pair" in data.column_names else [data["text"][:]]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    columns = {**encoded, "labels": data["label"][:]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class Classification(Problem):
    """A pretrained body with a new head, and the rows of a TaskData."""

    def __init__(
        self,
        model: ModelSettings,
        task: Mapping[str, Any],
        method: Mapping[str, Any],
        data: TaskData,
        runtime: Runtime,
        eval_batch_size: int,
    ) -> None:
        label_metrics.load(data.metric)  # a mistyped metric is found before training, not after
        self.runtime, self.eval_batch_size = runtime, eval_batch_size
        self.model, self.tokenizer = load_classifier(model, data, runtime)
        self.heads = head_modules(self.model)
        length = min(task["max_length"], max(1, methods.room(self.model, method)))
        marks = self.tokenizer.num_special_tokens_to_add(pair="text_pair" in data.train.column_names)
        if length <= marks:
            raise InputError(f"task.max_length = {length} leaves no room for a text: the tokenizer adds {marks} marks")
        self.rows = {split: tokenize(getattr(data, split), self.tokenizer, length) for split in SPLITS}
        if data.second_test is not None:
            self.rows[SECOND] = tokenize(data.second_test, self.tokenizer, length)
        for rows in self.rows.values():
            check_tokens(rows, self.model)
        self.metric = self.validation_metric = data.metric
        self.names = (data.metric, *data.more_metrics)
        self.majority = majority(data.validation["label"][:]) if data.label_names else None
        self.collate = DataCollatorWithPadding(self.tokenizer)

    def _forward(self, rows: Rows) -> tuple[Any, Tensor]:
        """What the model says of a batch, and its labels, both on the device."""
        place, collated = self.runtime.device, self.collate(rows)
        if device.queues(place) and collated["attention_mask"].all():
            del collated["attention_mask"]  # attention without a mask has faster kernels
        batch = device.brought(collated, place)
        with self.runtime.autocast, device.padding_known(place):
            return self.model(**batch), batch["labels"]

    def loss(self, rows: Rows, label_smoothing: float = 0.0) -> Tensor:  # noqa: D102
        output, labels = self._forward(rows)
        if not label_smoothing or output.logits.shape[1] == 1:
            return output.loss
        logits = output.logits.float()
        return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def weight(self, rows: Rows) -> int:  # noqa: D102
        return len(rows)

    def evaluate(self, split: str, generate: bool = True) -> Evaluated:
        """Loss and metrics. Where a task has a second test set, MNLI's mismatched one, metrics of that and of both
        together, overall, follow those of the test split, which is the matched one; the loss is of the split."""
        first = self._predict(split)
        scores = {"loss": first.loss, **label_metrics.compute(self.names, first.predictions, first.references)}
        items = self._items(first)
        if split == "test" and SECOND in self.rows:
            more = self._predict(SECOND)
            both = (first.predictions + more.predictions, first.references + more.references)
            for suffix, (found, right) in (("mismatched", more[1:3]), ("overall", both)):
                values = label_metrics.compute(self.names, found, right)
                scores |= {f"{name}_{suffix}": value for name, value in values.items()}
            items += self._items(more)
        return Evaluated(scores, [], items)

    def _items(self, predicted: _Predicted) -> Items:
        """What became of each item, in the order of the split's rows."""
        found, right = np.array(predicted.predictions), np.array(predicted.references)
        back = np.argsort(predicted.order)
        if self.majority is None:
            return Items(loss=np.square(found - right)[back])
        return Items(correct=(found == right)[back])

    @torch.inference_mode()
    def _predict(self, split: str) -> _Predicted:
        self.model.eval()
        order = sorted(range(len(self.rows[split])), key=lambda index: len(self.rows[split][index]["input_ids"]))
        rows = [self.rows[split][index] for index in order]
        batches = [rows[first : first + self.eval_batch_size] for first in range(0, len(rows), self.eval_batch_size)]
        found = parallel.each(batches, self._scored)
        total = 0.0
        for batch, (loss, _, _) in zip(batches, found, strict=True):
            total += loss.item() * len(batch)
        logits, references = (torch.cat([own[place] for own in found]) for place in (1, 2))
        predictions = logits.squeeze(1) if logits.shape[1] == 1 else logits.argmax(1)
        return _Predicted(total / len(rows), predictions.tolist(), references.tolist(), order)

    def _scored(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss, the logits and the labels of a batch."""
        output, labels = self._forward(rows)
        return output.loss, output.logits.float(), labels


class _Predicted(NamedTuple):
    """The mean loss of a split, and predictions and references of its rows, of which `order` has the numbers."""

    loss: float
    predictions: list[float]
    references: list[float]
    order: list[int]
