"""Who is timed: this suite's own loop, and peft + transformers.Trainer, as it comes and at its best settings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import peft
import torch
from transformers import Trainer, TrainingArguments

from bench.classifier import Classifier
from bench.language import LanguageModel
from bench.workload import Workload
from experiments import methods
from experiments.compute import PeakMemory
from experiments.config import RunConfig
from experiments.problems.base import Problem
from experiments.training import train

WORKLOADS: dict[str, Workload] = {"minilm": Classifier(), "smollm2": LanguageModel()}


class Trial(NamedTuple):
    """What one contender did. `loss` is that of the validation rows after the last step: the same work ends alike."""

    tokens_per_second: float
    peak_memory_bytes: int
    loss: float
    precision: str  # of the frozen weights


def lora_lab(work: Workload, steps: int) -> Trial:
    """This suite's own loop."""
    config = work.config(steps)
    problem = work.problem(config)
    peak = PeakMemory(problem.runtime.device)
    method, training = config.method, config.training
    methods.apply(problem.model, method, problem.heads)
    groups = methods.parameter_groups(problem.model, method, problem.heads, training.lr)
    trained = train(problem, groups, training, seed=0, history=[], progress=False)
    loss, precision = trained.validation["loss"], _name(problem.runtime.dtype)
    return Trial(trained.tokens / trained.seconds, peak.read(), loss, precision)


def trainer_best(work: Workload, steps: int) -> Trial:
    """peft + Trainer at its best here: batches of similar lengths, lora-lab's weights and attention."""
    config = work.config(steps)
    problem = work.problem(config)
    bf16 = problem.runtime.dtype == torch.bfloat16
    return _trainer(work, config, problem, bf16=bf16, train_sampling_strategy="group_by_length")


def trainer_defaults(work: Workload, steps: int) -> Trial:
    """peft + Trainer as they come: the model as from_pretrained gives it, random batches."""
    config = work.config(steps)
    problem = work.problem(config)
    problem.model = work.default_model(config)  # in place of the one that is freed before memory is measured
    return _trainer(work, config, problem)


CONTENDERS: dict[str, Callable[[Workload, int], Trial]] = {
    "lora-lab": lora_lab,
    "peft + Trainer, best settings": trainer_best,
    "peft + Trainer, defaults": trainer_defaults,
}


def _trainer(work: Workload, config: RunConfig, problem: Problem, **options: Any) -> Trial:
    """peft + Trainer. What is not in `options` is the Trainer's default, but for what makes it the same work."""
    method, training, rows, runtime = config.method, config.training, problem.rows["train"], problem.runtime
    peak, precision = PeakMemory(runtime.device), _name(problem.model.dtype)
    settings = {
        "per_device_train_batch_size": training.batch_size,
        "learning_rate": training.lr,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup_ratio,  # below 1 it is a share of the steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "num_train_epochs": 1,
        "seed": 0,
        "use_cpu": runtime.device.type == "cpu",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    lora = peft.LoraConfig(
        task_type=work.peft_task, r=method["r"], lora_alpha=method["alpha"], target_modules=work.targets
    )
    with tempfile.TemporaryDirectory() as folder:  # the Trainer makes one even to store nothing
        arguments = TrainingArguments(folder, **settings, **options)
        trainer = Trainer(
            peft.get_peft_model(problem.model, lora), arguments, work.collator(problem), train_dataset=rows
        )
        seconds = trainer.train().metrics["train_runtime"]  # of the loop, without what comes before it
    tokens, memory = sum(len(row["input_ids"]) for row in rows), peak.read()
    loss = problem.evaluate("validation").scores["loss"]  # peft has changed the model in place
    return Trial(tokens / seconds, memory, loss, precision)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
