"""The training loop: an optimizer, a schedule, batches of similar length, and a history of what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from experiments import device, dropout, optimizers, parallel
from experiments.checkpoint import Checkpoint, Position
from experiments.collapse import Check, check
from experiments.config import TrainingSettings
from experiments.problems.base import Problem, Rows
from experiments.store import DivergedError

BLOCK = 16  # steps after which a GPU is asked for their losses: who asks waits for all that is queued


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

    Raises DivergedError when the loss is not finite, after the row that says at which step (a GPU has gone on for less
    than BLOCK steps by then), and InputError as `experiments.optimizers.make`.
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
    queued: list[tuple[dict[str, Any], Tensor]] = []  # rows of the history whose losses are still on the device
    block = BLOCK if device.queues(parameters[0].device) else 1

    def fetch() -> None:
        for row, loss in _fetched(queued):
            history.append(row | {"loss": loss})
            if not math.isfinite(loss):
                where = f"step {row['step']} of {steps}"
                raise DivergedError(f"the loss is {loss} at {where}: training.lr = {training.lr:g} is too high")
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        queued.clear()

    with (
        dropout.masks(training.dropout_masks),
        tqdm(
            total=steps, initial=at.step, desc="run", unit="step", leave=False, disable=None if progress else True
        ) as bar,
    ):
        for epoch in range(at.epoch + 1, training.epochs + 1):
            problem.model.train()
            started = time.perf_counter()
            for batch in loader:
                at.step += 1
                at.tokens += sum(len(row["input_ids"]) for row in batch)
                losses = parallel.summed(parameters, _backward(problem, batch, training))
                torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                row = {"step": at.step, "epoch": epoch, "tokens": at.tokens}
                queued.append((row | {"split": "train", "lr": scheduler.get_last_lr()[0]}, losses))
                scheduler.step()
                bar.update()
                if len(queued) == block:
                    fetch()
            fetch()
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


def _fetched(queued: Sequence[tuple[dict[str, Any], Tensor]]) -> Iterator[tuple[dict[str, Any], float]]:
    """Each row with the sum of its losses, which are fetched from the device all at once."""
    if not queued:
        return
    found = iter(torch.cat([losses for _, losses in queued]).tolist())
    for row, losses in queued:
        total = 0.0
        for loss in islice(found, len(losses)):
            total += loss
        yield row, total


def _backward(problem: Problem, batch: Rows, training: TrainingSettings) -> Tensor:
    """Gradients of the mean loss of a batch, computed in parts of similar length; returns each part's share of it
    (n,), on the device. Of several processes each computes its rows' share of both."""
    parts = min(training.accumulate or 1, len(batch))
    if parts > 1:
        batch = sorted(batch, key=lambda row: len(row["input_ids"]))
    size, total, shares = math.ceil(len(batch) / parts), problem.weight(batch), []
    for first in range(0, len(batch), size):
        part, counts = parallel.own(batch[first : first + size])
        weight = problem.weight(part) if counts else 0
        loss = problem.loss(part, training.label_smoothing or 0.0) * (weight / total)
        loss.backward()  # type: ignore[no-untyped-call]
        shares.append(loss.detach())
    return torch.stack(shares)
