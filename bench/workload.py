"""What contenders are timed on: a model, a task and how it is trained, the same for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from transformers import DataCollator, PreTrainedModel

from experiments import budget, problems, tasks
from experiments.config import RunConfig
from experiments.models import choose_runtime
from experiments.problems.base import Problem, Rows
from lora.config import InputError

VALIDATION = 64


class Workload(ABC):
    """One model, task and recipe: the settings of a run of this suite, and what peft + Trainer need for the same."""

    title: str
    file: str  # of results, without suffix
    settings: Sequence[str]  # of a run, as on the command line of experiments.run
    peft_task: str
    targets: list[str]  # transformers' names of the projections that LoRA adapts

    def config(self, steps: int) -> RunConfig:
        """The config of a run with data for `steps` steps, and VALIDATION rows for the loss after them."""
        with initialize_config_module("experiments.conf", version_base="1.3"):
            sizes = ["training.epochs=1", f"task.validation_examples={VALIDATION}", "task.test_examples=1"]
            config = compose("config", [*self.settings, *sizes])
        config.task.train_examples = steps * config.training.batch_size
        config.runtime.eval_batch_size = config.training.batch_size  # so that memory peaks in training
        resolved = OmegaConf.to_container(config, resolve=True)
        assert isinstance(resolved, dict)
        return RunConfig.of(budget.resolve({str(name): value for name, value in resolved.items()}))

    def problem(self, config: RunConfig) -> Problem:
        """The model as this suite loads it, and its training rows. Raises InputError if there are too few of them."""
        data = tasks.load(config.task)
        if len(data.train) < config.task["train_examples"]:
            most = len(data.train) // config.training.batch_size
            raise InputError(f"--steps: {self.title} has data for {most} steps")
        run = config.runtime
        torch.manual_seed(0)
        return problems.load(config, data, choose_runtime(run.device, run.precision, run.threads))

    @abstractmethod
    def default_model(self, config: RunConfig) -> PreTrainedModel:
        """The model as transformers' from_pretrained gives it when told nothing but its path."""

    @abstractmethod
    def collator(self, problem: Problem) -> DataCollator:
        """transformers' own collator for the rows of `problem`."""

    @abstractmethod
    def flops_per_token(self, model: PreTrainedModel, rows: Rows) -> float:
        """FLOPs a real token costs in frozen weights: 2 a weight forward, and 2 a weight backward to the input."""
