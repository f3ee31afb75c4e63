"""The training loop: an optimizer, a schedule, batches of similar length, and a history of what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from experiments import optimizers, parallel
from experiments.checkpoint import Checkpoint, Position
from experiments.collapse import Check, check
from experiments.config import TrainingSettings
from experiments.problems.base import Problem, Rows
from experiments.store import DivergedError


class Trained(NamedTuple):
    """Seconds of training steps alone, real tokens trained on (no padding), validation scores of the last epoch and
    whether they are those of a collapse, and what `memory` said after the steps of the first, before anything was
    evaluated."""

    seconds: float
    tokens: int
    validation: dict[str, float]
    collapse: Check
    memory: int | None = None


def train(
    problem: Problem,
    groups: list[dict[str, Any]],
    training: TrainingSettings,
    seed: int,
    history: list[dict[str, Any]],
    progress: bool = True,
    method: Mapping[str, Any] | None = None,
    memory: Callable[[], int] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train the model of `problem`; `groups` are the optimizer's: its parameters and their learning rates. The
    optimizer is AdamW, unless `method` asks for another.

    A batch is `training.batch_size` rows, computed in `training.accumulate` parts; its gradient is that of the mean
    loss over all of it. Appends to `history` a row a step, and a row an epoch for validation. Without groups nothing is
    trained, and validation data are scored once.

    With a `checkpoint` it goes on from where an earlier try was, with the same result.

    Raises DivergedError when the loss is not finite, after the row that says at which step, and InputError as
    `experiments.optimizers.make`.
    """
    if not groups:
        found = problem.evaluate("validation")
        return Trained(0.0, 0, found.scores, check(found.items.accuracy, problem.majority))
    rows, batch_size = problem.rows["train"], training.batch_size
    lengths = [len(row["input_ids"]) for row in rows]
    order = torch.Generator().manual_seed(seed)
    sampler = LengthGroupedSampler(batch_size, lengths=lengths, generator=order)
    data = cast("Dataset[dict[str, Any]]", rows)  # a list has all that a DataLoader asks of a Dataset
    loader = DataLoader(data, batch_size, sampler=sampler, collate_fn=list)
    parameters = [parameter for group in groups for parameter in group["params"]]
    steps = len(loader) * training.epochs
    optimizer = optimizers.make(
        problem.model, groups, method or {}, training.weight_decay, training.state_precision, seed, steps
    )
    warmup = training.warmup_steps or math.ceil(steps * training.warmup_ratio)
    scheduler = get_scheduler(training.schedule, optimizer, warmup, steps)
    at = checkpoint.load(optimizer, scheduler, order) if checkpoint else Position()
    for row in at.history:
        history.append(row)
    with tqdm(
        total=steps, initial=at.step, desc="run", unit="step", leave=False, disable=None if progress else True
    ) as bar:
        for epoch in range(at.epoch + 1, training.epochs + 1):
            problem.model.train()
            started = time.perf_counter()
            for batch in loader:
                at.step += 1
                at.tokens += sum(len(row["input_ids"]) for row in batch)
                loss = parallel.summed(parameters, _backward(problem, batch, training))
                torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                row = {"step": at.step, "epoch": epoch, "tokens": at.tokens}
                history.append({**row, "split": "train", "loss": loss, "lr": scheduler.get_last_lr()[0]})
                if not math.isfinite(loss):
                    where = f"step {at.step} of {steps}"
                    raise DivergedError(f"the loss is {loss} at {where}: training.lr = {training.lr:g} is too high")
                scheduler.step()
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            at.seconds += time.perf_counter() - started
            if epoch == 1 and memory:
                at.memory = memory()
            found = problem.evaluate("validation")
            at.scores, at.accuracy = found.scores, found.items.accuracy
            if not math.isfinite(at.scores["loss"]):
                where = f"step {at.step} of {steps}"
                raise DivergedError(
                    f"the validation loss is {at.scores['loss']} after {where}: training.lr is too high"
                )
            history.append(
                {
                    **row,
                    "split": "validation",
                    "loss": at.scores["loss"],
                    "metric": at.scores[problem.validation_metric],
                }
            )
            if checkpoint:
                at.epoch, at.history = epoch, list(history)
                checkpoint.save(at, optimizer, scheduler, order)
    for parameter in parameters:  # BAdam leaves its last block alone with gradients, but has trained all
        parameter.requires_grad_(True)
    return Trained(at.seconds, at.tokens, at.scores, check(at.accuracy, problem.majority), at.memory)


def _backward(problem: Problem, batch: Rows, training: TrainingSettings) -> float:
    """Gradients of the mean loss of a batch, computed in parts of similar length; returns that loss. Of several
    processes each computes its rows' share of both."""
    parts = min(training.accumulate or 1, len(batch))
    if parts > 1:
        batch = sorted(batch, key=lambda row: len(row["input_ids"]))
    size, total, mean = math.ceil(len(batch) / parts), problem.weight(batch), 0.0
    for first in range(0, len(batch), size):
        part, counts = parallel.own(batch[first : first + size])
        weight = problem.weight(part) if counts else 0
        loss = problem.loss(part, training.label_smoothing or 0.0) * (weight / total)
        loss.backward()  # type: ignore[no-untyped-call]
        mean += loss.item()
    return mean
