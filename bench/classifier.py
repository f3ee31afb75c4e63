"""MiniLM-L6, an encoder, with a new head on film reviews: 22.7M parameters, most of a step is small operations."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollator,
    DataCollatorWithPadding,
    PreTrainedModel,
)

from bench.workload import Workload
from experiments.config import RunConfig
from experiments.hub import locate
from experiments.problems.base import Problem, Rows


class Classifier(Workload):
    """Classification with the model's own dropout. The head is drawn anew from the same seed for every contender."""

    title = "MiniLM-L6, Rotten Tomatoes, LoRA r = 8 on q and v, batch 32"
    file = "training"
    settings = (
        "model=minilm", "model.dropout=null", "task=rotten_tomatoes", "method=lora", "method.r=8", "method.alpha=16",
        "method.weight_types=q+v", "training.lr=1e-3", "training.batch_size=32",
        "training.dropout_masks=fast",  # as the quick preset has; transformers draws its own
    )  # fmt: skip
    peft_task, targets = "SEQ_CLS", ["query", "value"]

    def default_model(self, config: RunConfig) -> PreTrainedModel:  # noqa: D102
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(
            locate(config.model.path), num_labels=2, trust_remote_code=False
        )

    def collator(self, problem: Problem) -> DataCollator:  # noqa: D102
        return DataCollatorWithPadding(problem.tokenizer)

    def flops_per_token(self, model: PreTrainedModel, rows: Rows) -> float:
        """Of the encoder's projections; the head, which sees one token a review, is left out."""
        encoder = model.get_submodule(f"{model.base_model_prefix}.encoder")
        return 4.0 * sum(module.weight.numel() for module in encoder.modules() if isinstance(module, nn.Linear))
