"""A sweep of LoRA's rank as a plain script of peft + transformers.Trainer: one process, a loop over the ranks.

At its best settings here: the weights in bf16 where the processor has it, batches of similar lengths, tokens made once,
evaluation in large batches; texts are written greedily with a key-value cache, LoRA merged, prompts of similar lengths
together in large batches. Trained, validated and tested on the same rows as this suite's sweep, with its recipe; but
Trainer has one learning rate, where the suite gives a classifier's head its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import peft
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from experiments import tasks
from experiments.hub import locate
from experiments.metrics import text_metrics
from experiments.models import choose_runtime, head_modules, set_dropout
from experiments.problems.base import Rows
from experiments.problems.classification import tokenize
from experiments.problems.encoding import IGNORED, Encoder


class Peer(ABC):
    """A model and a task's rows for peft + Trainer, by the config of a run."""

    auto: Any  # transformers' class of the model
    collator: Any
    lora: ClassVar[dict[str, Any]]  # what peft is told beside r and alpha
    metrics: Any = None  # of predictions, as Trainer asks for it

    def __init__(self, config: dict[str, Any], data: Any) -> None:
        self.config, self.data, self.path = config, data, locate(config["model"]["path"])
        self.runtime = choose_runtime(threads=int(config["threads"]))
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.rows = {split: self.tokens(split) for split in tasks.SPLITS}

    @abstractmethod
    def tokens(self, split: str) -> Rows:
        """The rows of a split."""

    def network(self, **options: Any) -> Any:
        """The pretrained model, as this suite loads it."""
        config = AutoConfig.from_pretrained(self.path, **options)
        set_dropout(config, self.config["model"]["dropout"])
        attention = "eager" if self.runtime.device.type == "cpu" else "sdpa"
        return self.auto.from_pretrained(
            self.path, config=config, dtype=self.runtime.dtype, attn_implementation=attention
        )

    def trainer(self, r: int, folder: str) -> Trainer:
        """A Trainer of LoRA of rank r."""
        training = self.config["training"]
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=training["batch_size"],
            per_device_eval_batch_size=self.config["runtime"]["eval_batch_size"], num_train_epochs=training["epochs"],
            learning_rate=training["lr"], lr_scheduler_type=training["schedule"], weight_decay=training["weight_decay"],
            warmup_steps=training["warmup_ratio"],  # below 1 it is a share of the steps
            train_sampling_strategy="group_by_length", eval_strategy="epoch", seed=0,
            bf16=self.runtime.dtype == torch.bfloat16, use_cpu=self.runtime.device.type == "cpu",
            disable_tqdm=True, save_strategy="no", report_to="none",
        )  # fmt: skip
        lora = peft.LoraConfig(r=r, lora_alpha=self.config["method"]["alpha"], **self.lora)
        return Trainer(
            peft.get_peft_model(self.network(), lora), arguments, self.collator(self.tokenizer),
            train_dataset=self.rows["train"], eval_dataset=self.rows["validation"], compute_metrics=self.metrics,
        )  # fmt: skip

    def test(self, trainer: Trainer) -> dict[str, float]:
        """The scores of the test split."""
        return {name.removeprefix("eval_"): value for name, value in trainer.evaluate(self.rows["test"]).items()}


def accuracy(prediction: Any) -> dict[str, float]:
    """As Trainer asks for it."""
    return {"accuracy": float((np.argmax(prediction.predictions, 1) == prediction.label_ids).mean())}


class Classifier(Peer):
    """An encoder with a new head, which is in fp32."""

    auto, collator = AutoModelForSequenceClassification, DataCollatorWithPadding
    lora: ClassVar = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
    metrics = staticmethod(accuracy)

    def tokens(self, split: str) -> Rows:  # noqa: D102
        return tokenize(getattr(self.data, split), self.tokenizer, self.config["task"]["max_length"])

    def network(self, **options: Any) -> Any:  # noqa: D102
        model = super().network(num_labels=len(self.data.label_names), **options)
        for name in head_modules(model):
            model.get_submodule(name).float()
        return model


class Writer(Peer):
    """A decoder, whose texts of the test split are scored too."""

    auto, collator = AutoModelForCausalLM, DataCollatorForSeq2Seq
    lora: ClassVar = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}

    def tokens(self, split: str) -> Rows:  # noqa: D102
        encoder = Encoder(self.tokenizer, self.config["task"]["format"], self.config["task"]["max_length"])
        return [
            encoder.pair(row["prompt"], row["completion"] if split == "train" else row["references"][0])
            for row in getattr(self.data, split)
        ]

    def test(self, trainer: Trainer) -> dict[str, float]:  # noqa: D102
        loss = super().test(trainer)
        texts = self.written(trainer.model.merge_and_unload())
        return loss | text_metrics.score((self.data.metric, *self.data.more_metrics), self.data.test.to_list(), texts)

    def written(self, model: Any) -> list[str]:
        """What the model writes for each row of the test split."""
        prompts = [row["input_ids"][: row["labels"].count(IGNORED)] for row in self.rows["test"]]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
        texts, size = [""] * len(prompts), self.config["runtime"]["eval_batch_size"]
        model.eval()
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            padded = self.tokenizer.pad(
                {"input_ids": [prompts[index] for index in batch]}, padding_side="left", return_tensors="pt"
            ).to(model.device)
            found = model.generate(
                **padded, max_new_tokens=self.config["task"]["generation"]["max_new_tokens"], do_sample=False,
                use_cache=True, pad_token_id=self.tokenizer.pad_token_id, eos_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
            new = self.tokenizer.batch_decode(found[:, padded["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(batch, new, strict=True):
                texts[index] = text.strip()
        return texts


def main(config: dict[str, Any], ranks: list[int]) -> None:
    """Print the test scores of each rank."""
    data = tasks.load(config["task"])
    peer = (Writer if isinstance(data, tasks.TextData) else Classifier)(config, data)
    for r in ranks:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            trainer = peer.trainer(r, folder)
            trainer.train()
            print(json.dumps({"r": r, **peer.test(trainer)}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
