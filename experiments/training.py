"""The training loop: AdamW, a schedule, batches of similar length, and a history of what happened."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler
from transformers.trainer_pt_utils import LengthGroupedSampler

from experiments.evaluation import Rows, batches, evaluate
from experiments.models import Runtime
from experiments.store import DivergedError


class Trained(NamedTuple):
    """Seconds of training steps alone, real tokens trained on (no padding), validation scores of the last epoch."""

    seconds: float
    tokens: int
    validation: dict[str, float]


def tokenize(data: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """Rows of input_ids, attention_mask (and token_type_ids) and labels, cut at `max_length` tokens."""
    texts = [data["text"][:], data["text_pair"][:]] if "text_pair" in data.column_names else [data["text"][:]]
    encoded = tokenizer(*texts, truncation=True, max_length=max_length)
    columns = {**encoded, "labels": data["label"][:]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Rows,
    validation: Rows,
    groups: list[dict[str, Any]],
    training: Mapping[str, Any],
    metrics: Sequence[str],
    runtime: Runtime,
    eval_batch_size: int,
    seed: int,
    history: list[dict[str, Any]],
    progress: bool = True,
) -> Trained:
    """Train `model` on tokenized `data`; `groups` are the optimizer's: its parameters and their learning rates.

    Appends to `history` a row a step, and a row an epoch for validation.

    Raises DivergedError when the loss is not finite, after the row that says at which step.
    """
    batch_size = training["batch_size"]
    generator = torch.Generator().manual_seed(seed)
    lengths = [len(row["input_ids"]) for row in data]
    sampler = LengthGroupedSampler(batch_size, lengths=lengths, generator=generator)
    loader = batches(data, tokenizer, batch_size, sampler)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=training["weight_decay"], fused=True)
    steps = len(loader) * training["epochs"]
    scheduler = get_scheduler(training["schedule"], optimizer, math.ceil(steps * training["warmup_ratio"]), steps)
    seconds, tokens, step = 0.0, 0, 0
    scores: dict[str, float] = {}
    with tqdm(total=steps, desc="run", unit="step", leave=False, disable=None if progress else True) as bar:
        for epoch in range(1, training["epochs"] + 1):
            model.train()
            started = time.perf_counter()
            for batch in loader:
                step += 1
                tokens += int(batch["attention_mask"].sum())
                with runtime.autocast:
                    output = model(**batch.to(runtime.device))
                output.loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, training["max_grad_norm"])
                optimizer.step()
                optimizer.zero_grad()
                row = {"step": step, "epoch": epoch, "tokens": tokens}
                loss, lr = output.loss.item(), scheduler.get_last_lr()[0]
                history.append({**row, "split": "train", "loss": loss, "lr": lr})
                if not math.isfinite(loss):
                    at = f"step {step} of {steps}"
                    raise DivergedError(f"the loss is {loss} at {at}: training.lr = {training['lr']:g} is too high")
                scheduler.step()
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            seconds += time.perf_counter() - started
            scores = evaluate(model, tokenizer, validation, metrics, runtime, eval_batch_size)
            if not math.isfinite(scores["loss"]):
                at = f"step {step} of {steps}"
                raise DivergedError(f"the validation loss is {scores['loss']} after {at}: training.lr is too high")
            history.append({**row, "split": "validation", "loss": scores["loss"], "metric": scores[metrics[0]]})
    return Trained(seconds, tokens, scores)
