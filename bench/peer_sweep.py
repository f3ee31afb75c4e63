"""The rank ablation as a plain script of peft + transformers.Trainer: one process, a loop over the ranks.

At its best settings here: the weights in bf16 where the processor has it, batches of similar lengths, tokens made once,
evaluation in large batches; trained, validated and tested on the same rows as this suite's sweep, with its recipe.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import numpy as np
import peft
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from experiments import tasks
from experiments.hub import locate
from experiments.models import choose_runtime, head_modules
from experiments.problems.classification import tokenize


def accuracy(prediction: Any) -> dict[str, float]:
    """As Trainer asks for it."""
    return {"accuracy": float((np.argmax(prediction.predictions, 1) == prediction.label_ids).mean())}


def main(config: dict[str, Any], ranks: list[int]) -> None:
    """Print the test accuracy of each rank."""
    torch.set_num_threads(int(config["threads"]))
    runtime, path, training = choose_runtime("cpu"), locate(config["model"]["path"]), config["training"]
    data = tasks.load(config["task"])
    assert isinstance(data, tasks.TaskData)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = {split: tokenize(getattr(data, split), tokenizer, config["task"]["max_length"]) for split in tasks.SPLITS}
    bf16 = runtime.dtype == torch.bfloat16
    for r in ranks:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=len(data.label_names), dtype=runtime.dtype, attn_implementation="eager"
        )
        lora = peft.LoraConfig(task_type="SEQ_CLS", r=r, lora_alpha=16, target_modules=["query", "value"])
        for name in head_modules(model):
            model.get_submodule(name).float()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, per_device_train_batch_size=training["batch_size"], per_device_eval_batch_size=64,
                num_train_epochs=training["epochs"], learning_rate=training["lr"], lr_scheduler_type="linear",
                warmup_steps=training["warmup_ratio"], weight_decay=training["weight_decay"],
                train_sampling_strategy="group_by_length", eval_strategy="epoch", bf16=bf16, seed=0,
                use_cpu=True, disable_tqdm=True, save_strategy="no", report_to="none",
            )  # fmt: skip
            trainer = Trainer(
                peft.get_peft_model(model, lora), arguments, DataCollatorWithPadding(tokenizer),
                train_dataset=rows["train"], eval_dataset=rows["validation"], compute_metrics=accuracy,
            )  # fmt: skip
            trainer.train()
            print(r, trainer.evaluate(rows["test"])["eval_accuracy"], flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
