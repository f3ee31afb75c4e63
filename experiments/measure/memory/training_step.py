"""A training step of a setup as the trainer takes it, of real tensors or of fake ones, on a batch of made-up tokens:
what a step takes depends on shapes alone."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import BatchEncoding, PreTrainedModel

from experiments import method_settings, methods, optimizers
from experiments.checks import check_quantization
from experiments.compute import checkpoint_activations
from experiments.config import TrainingSettings
from experiments.measure.memory.setup import LABELS, PRECISIONS, Setup
from experiments.method_settings import BAdam, GaLore
from experiments.models import Runtime, head_modules
from experiments.problems.base import Problem, Rows
from experiments.problems.classification import Classification
from experiments.problems.encoding import IGNORED
from experiments.problems.language import Language
from lora.config import InputError

ENDLESS = 10**9  # steps of the run


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


def runtime(setup: Setup, device: str) -> Runtime:
    """Where and how the loss is computed: under autocast in the suite's own precision bf16, the one that mixes weights.

    Raises InputError for an unknown precision.
    """
    if setup.precision not in PRECISIONS:
        raise InputError(f"precision = {setup.precision!r}: choose from {', '.join(PRECISIONS)}")
    return Runtime(torch.device(device), torch.bfloat16 if setup.precision == "bf16" else torch.float32)


def method(setup: Setup) -> dict[str, Any]:
    """The method; BAdam's blocks take turns from the first layer, whose turn takes most, and that one goes on.

    Raises InputError as `method_settings.read`.
    """
    if not isinstance(method_settings.optimizer(setup.method), BAdam):
        return dict(setup.method)
    return {**setup.method, "order": "ascending", "switch": 10**6}


def adapt(model: PreTrainedModel, rows: Rows, setup: Setup, where: Runtime) -> Problem:
    """Apply the method to `model`, ready to be trained on `rows`.

    Raises InputError as `experiments.methods.apply`, and for a method that trains what is quantised.
    """
    check_quantization(setup.model.get("quantization"), setup.method)
    problem: Problem = Sequences(model, where) if setup.targets is None else Texts(model, where)
    methods.apply(model, setup.method, problem.heads, lambda: problem.backward(rows, len(rows)))
    if setup.precision in ("amp", "pure16"):
        cast(model, torch.bfloat16)
    if setup.checkpointing:
        checkpoint_activations(model)
    model.train()
    return problem


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Parameters in another precision. `module.to` swaps fake tensors with others, which not all of them allow."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def optimizer(problem: Problem, setup: Setup, method: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The trainer's optimizer of `method`.

    Raises InputError as `experiments.optimizers.make`, and for a method that trains nothing.
    """
    groups = methods.parameter_groups(problem.model, method, problem.heads, lr=1e-4)
    if not groups:
        raise InputError(f"method {method['name']} trains nothing: it has no training step")
    # torch's AdamW has moments in the precision of the weights, GaLore in one that is asked for.
    TrainingSettings.rules()["state_precision"].check("training.state_precision", setup.state_precision)
    halves = setup.precision == "pure16" and isinstance(method_settings.optimizer(method), GaLore)
    state_precision = "bf16" if halves else setup.state_precision
    return optimizers.make(problem.model, groups, method, 0.0, state_precision, seed=0, steps=ENDLESS)


def gradients(problem: Problem, rows: Rows, made: torch.optim.Optimizer) -> None:
    """Forward and backward pass, and the clipping of gradients."""
    problem.backward(rows, len(rows))
    parameters = [parameter for group in made.param_groups for parameter in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
