"""Score a model on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from experiments import metrics
from experiments.models import Runtime

Rows = list[dict[str, Any]]  # input_ids, attention_mask, (token_type_ids,) labels of each example


def batches(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, batch_size: int, sampler: Sampler[int] | None = None
) -> DataLoader[dict[str, Any]]:
    """Batches of `rows`, in their order or the sampler's, each padded to its longest row."""
    data = cast("Dataset[dict[str, Any]]", rows)  # a list has all that a DataLoader asks of a Dataset
    return DataLoader(data, batch_size, sampler=sampler, collate_fn=DataCollatorWithPadding(tokenizer))


@torch.inference_mode()
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Rows,
    names: Sequence[str],
    runtime: Runtime,
    batch_size: int,
) -> dict[str, float]:
    """Mean loss and the named metrics on tokenized `data`. Leaves the model in eval mode."""
    model.eval()
    by_length = sorted(data, key=lambda row: len(row["input_ids"]))
    loader = batches(by_length, tokenizer, batch_size)
    total, outputs, references = 0.0, [], []
    for batch in loader:
        with runtime.autocast:
            result = model(**batch.to(runtime.device))
        total += result.loss.item() * len(batch["labels"])
        outputs.append(result.logits.float().cpu())
        references += batch["labels"].tolist()
    logits = torch.cat(outputs)
    predictions = logits.squeeze(1) if logits.shape[1] == 1 else logits.argmax(1)
    return {"loss": total / len(data), **metrics.compute(names, predictions.tolist(), references)}
