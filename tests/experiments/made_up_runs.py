"""Runs in the runner's format whose trained parameters are drawn at random, for what is measured on runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn

from experiments import budget, methods, problems, tasks
from experiments.config import RunConfig
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from experiments.store import Store, definition, run_id
from lora import io
from lora.model import trainable_parameters


def composed(*overrides: str) -> dict[str, Any]:
    """The config of a run, as the runner resolves it."""
    GlobalHydra.instance().clear()
    with initialize_config_module("experiments.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return budget.resolve(cast(dict[str, Any], config))


def noise(model: nn.Module) -> None:
    """Moves every trained parameter, far enough that the outputs change."""
    torch.manual_seed(1)
    for parameter in trainable_parameters(model).values():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)


def store(results: Path, study: str, *overrides: str, change: Callable[[nn.Module], None] = noise) -> str:
    """Stores a run and lists it in results/smoke/<study>; returns its run_id. `change` is what training has done."""
    config = composed("preset=smoke", "training.lr=1e-3", *overrides)
    loaded = load(config)
    methods.apply(loaded.model, config["method"], loaded.heads)
    with torch.no_grad():
        change(loaded.model)
    defined = definition(config)
    identifier = run_id(defined)
    scores = {split: loaded.evaluate(split) for split in ("validation", "test")}
    metrics = {
        "main_metric": loaded.metric, "precision": "float32", "trainable_params": 1, "train_seconds": 1.0,
        "tokens_per_second": 1.0, "peak_memory_bytes": 1, "train_examples": 1,
        "metrics": [
            {"split": split, "metric": metric, "value": value}
            for split, found in scores.items() for metric, value in found.scores.items()
        ],
    }  # fmt: skip
    with Store(results / "runs").writing(identifier, defined) as folder:
        io.save(loaded.model, folder / "adapter")
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "config.yaml").write_text(yaml.safe_dump(defined, sort_keys=False))
        if scores["test"].outputs:
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores["test"].outputs))
    study_dir = results / "smoke" / study
    study_dir.mkdir(parents=True, exist_ok=True)
    with (study_dir / "sweep.jsonl").open("a") as file:
        file.write(json.dumps({"run_id": identifier, "role": "study"}) + "\n")
    return identifier


def load(config: dict[str, Any]) -> Problem:
    """The pretrained model and data of a config, on the CPU in fp32."""
    torch.manual_seed(0)
    return problems.load(RunConfig.of(config), tasks.load(config["task"]), choose_runtime("cpu", "fp32", 1))


def forget(study_dir: Path, run: str) -> None:
    """Takes a run out of the study's list."""
    lines = (study_dir / "sweep.jsonl").read_text().splitlines(keepends=True)
    (study_dir / "sweep.jsonl").write_text("".join(line for line in lines if run not in line))
