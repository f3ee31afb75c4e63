"""Who is timed: this suite's own loop, and peft + transformers.Trainer, as it comes and at its best settings."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import peft
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from bench.classifier import Classifier
from bench.language import LanguageModel
from bench.workload import Workload
from experiments import methods
from experiments.compute import PeakMemory
from experiments.problem import Problem
from experiments.training import train

WORKLOADS: dict[str, Workload] = {"minilm": Classifier(), "smollm2": LanguageModel()}


class Trial(NamedTuple):
    """What one contender did. `loss` is the mean training loss of the last quarter of the steps."""

    tokens_per_second: float
    peak_memory_bytes: int
    loss: float
    precision: str  # of the frozen weights


def lora_lab(work: Workload, steps: int) -> Trial:
    """This suite's own loop."""
    config = work.config(steps)
    problem = work.problem(config)
    peak = PeakMemory(problem.runtime.device)
    method, training = config["method"], config["training"]
    methods.apply(problem.model, method, problem.heads)
    groups = methods.parameter_groups(problem.model, method, problem.heads, training["lr"])
    history: list[dict[str, Any]] = []
    trained = train(problem, groups, training, seed=0, history=history, progress=False)
    losses = [row["loss"] for row in history if row["split"] == "train"]
    return Trial(trained.tokens / trained.seconds, peak.read(), _end(losses), _name(problem.runtime.dtype))


def trainer_best(work: Workload, steps: int) -> Trial:
    """peft + Trainer at its best here: batches of similar lengths, lora-lab's weights and attention."""
    config = work.config(steps)
    problem = work.problem(config)
    bf16 = problem.runtime.dtype == torch.bfloat16
    return _trainer(work, config, problem, problem.model, bf16=bf16, train_sampling_strategy="group_by_length")


def trainer_defaults(work: Workload, steps: int) -> Trial:
    """peft + Trainer as they come: the model as from_pretrained gives it, random batches."""
    config = work.config(steps)
    problem = work.problem(config)
    problem.model = work.default_model(config)  # in place of the one that is freed before memory is measured
    return _trainer(work, config, problem, problem.model)


CONTENDERS: dict[str, Callable[[Workload, int], Trial]] = {
    "lora-lab": lora_lab,
    "peft + Trainer, best settings": trainer_best,
    "peft + Trainer, defaults": trainer_defaults,
}


def _trainer(work: Workload, config: dict[str, Any], problem: Problem, model: PreTrainedModel, **options: Any) -> Trial:
    """peft + Trainer. What is not in `options` is the Trainer's default, but for what makes it the same work."""
    method, training, rows, runtime = config["method"], config["training"], problem.rows["train"], problem.runtime
    peak, precision = PeakMemory(runtime.device), _name(model.dtype)
    settings = {
        "per_device_train_batch_size": training["batch_size"],
        "learning_rate": training["lr"],
        "lr_scheduler_type": training["schedule"],
        "warmup_steps": training["warmup_ratio"],  # below 1 it is a share of the steps
        "weight_decay": training["weight_decay"],
        "max_grad_norm": training["max_grad_norm"],
        "num_train_epochs": 1,
        "seed": 0,
        "use_cpu": runtime.device.type == "cpu",
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    lora = peft.LoraConfig(
        task_type=work.peft_task, r=method["r"], lora_alpha=method["alpha"], target_modules=work.targets
    )
    with tempfile.TemporaryDirectory() as folder:  # the Trainer makes one even to store nothing
        arguments = TrainingArguments(folder, **settings, **options)
        trainer = Trainer(peft.get_peft_model(model, lora), arguments, work.collator(problem), train_dataset=rows)
        seconds = trainer.train().metrics["train_runtime"]  # of the loop, without what comes before it
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(len(row["input_ids"]) for row in rows)
    return Trial(tokens / seconds, peak.read(), _end(losses), precision)


def _end(losses: list[float]) -> float:
    return statistics.mean(losses[-(len(losses) // 4 or 1) :])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
