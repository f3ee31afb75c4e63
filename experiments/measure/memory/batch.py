"""A batch of made-up tokens, and the trainer's own loss of it: what a step takes depends on shapes alone."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedModel

from experiments.measure.memory.setup import LABELS, Setup
from experiments.models import Runtime, head_modules
from experiments.problems.base import Problem, Rows
from experiments.problems.classification import Classification
from experiments.problems.language import IGNORED, Language
from lora.config import InputError


class Sequences(Classification):
    """The loss of a classifier, without data or a tokenizer."""

    def __init__(self, model: PreTrainedModel, runtime: Runtime) -> None:
        self.model, self.runtime, self.heads = model, runtime, head_modules(model)
        self.collate = _columns


class Texts(Language):
    """The loss of a language model, without data or a tokenizer."""

    def __init__(self, model: PreTrainedModel, runtime: Runtime) -> None:
        self.model, self.runtime, self.heads = model, runtime, []
        self.tokenizer = _Padding()


class _Padding:
    pad_token_id = 0


def _columns(rows: Rows) -> BatchEncoding:
    return BatchEncoding({name: torch.tensor([row[name] for row in rows]) for name in rows[0]})


def problem(model: PreTrainedModel, runtime: Runtime, setup: Setup) -> Problem:
    """What `setup` trains `model` on."""
    return (Sequences if setup.targets is None else Texts)(model, runtime)


def rows(config: Any, setup: Setup) -> Rows:
    """`setup.batch` rows of random tokens, `setup.length` in the first, one less in the others: batches have padding.

    Raises InputError for sizes that are not at least 1, and for more targets than tokens that have one before them.
    """
    for name, value in {"batch": setup.batch, "length": setup.length, "targets": setup.targets or 1}.items():
        if value < 1:
            raise InputError(f"{name} = {value}: it must be at least 1")
    if setup.targets is not None and setup.targets >= setup.length:
        raise InputError(f"targets = {setup.targets}: of {setup.length} tokens {setup.length - 1} can be targets")
    drawn, vocabulary = random.Random(0), range(config.get_text_config().vocab_size)
    lengths = [setup.length, *[max(min(2, setup.length), setup.length - 1)] * (setup.batch - 1)]
    texts = [drawn.choices(vocabulary, k=length) for length in lengths]
    if setup.targets is None:
        return [_sequence(text, index % LABELS, setup.length) for index, text in enumerate(texts)]
    targets = [min(setup.targets, length - 1) for length in lengths]
    return [
        {"input_ids": text, "labels": [IGNORED] * (len(text) - count) + text[-count:]}
        for text, count in zip(texts, targets, strict=True)
    ]


def chosen(rows: Rows) -> int:
    """How many places of the rows have logits."""
    labels = [row["labels"] for row in rows]
    return sum(sum(token != IGNORED for token in own) if isinstance(own, list) else 1 for own in labels)


def _sequence(tokens: list[int], label: int, length: int) -> dict[str, Any]:
    rest = [0] * (length - len(tokens))
    return {"input_ids": tokens + rest, "attention_mask": [1] * len(tokens) + rest, "labels": label}
