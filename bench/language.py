"""SmolLM2-135M, a decoder, on pairs of a context and a target: headlines of BBC news from their first sentences."""

from __future__ import annotations

from torch import nn
from transformers import AutoModelForCausalLM, DataCollator, DataCollatorForSeq2Seq, PreTrainedModel

from bench.workload import Workload
from experiments.config import RunConfig
from experiments.hub import locate
from experiments.problems.base import Problem, Rows
from experiments.problems.encoding import IGNORED


class LanguageModel(Workload):
    """LoRA as in the paper's GPT-2 experiments (Table 11): r = 4 on q and v, alpha = 32, batch 8."""

    title = "SmolLM2-135M, BBC headlines, LoRA r = 4 on q and v, batch 8"
    file = "training_smollm2"
    settings = (
        "model=smollm2", "task=bbc_headlines", "method=lora", "method.r=4", "method.alpha=32",
        "method.weight_types=q+v", "training.lr=1e-3", "training.batch_size=8",
    )  # fmt: skip
    peft_task, targets = "CAUSAL_LM", ["q_proj", "v_proj"]

    def default_model(self, config: RunConfig) -> PreTrainedModel:  # noqa: D102
        return AutoModelForCausalLM.from_pretrained(locate(config.model.path), trust_remote_code=False)

    def collator(self, problem: Problem) -> DataCollator:
        """The one of transformers' collators that pads labels that are given, with those that the loss leaves out."""
        return DataCollatorForSeq2Seq(problem.tokenizer)

    def flops_per_token(self, model: PreTrainedModel, rows: Rows) -> float:
        """Of the layers' projections for every token, and of the output layer for target tokens alone."""
        output = model.get_output_embeddings().weight.numel()
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        inner = sum(module.weight.numel() for module in linear) - output
        tokens = sum(len(row["input_ids"]) for row in rows)
        targets = sum(label != IGNORED for row in rows for label in row["labels"])
        return 4.0 * (inner + output * targets / tokens)
