"""Stored runs whose updates are known, made without training: a tiny BERT, and adapters as the runner stores them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import randomise, tiny_model

from lora import freeze, inject, io
from lora.config import LoRAConfig
from lora.model import lora_layers

FULL = {"name": "full"}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT of 2 layers, 32 wide, with random weights."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("bert").save_pretrained(folder)
    return folder


@pytest.fixture
def train(make_run: Callable[..., str], runs_dir: Path, base: Path) -> Callable[..., str]:
    """Stores a run with an adapter; returns its run_id.

    of_w: delta_w is so many times the top-r part of W; without it it is random, or with `full` random everywhere. With
    `place` the run says of its model what this is: a folder, or the fingerprint of one.
    """

    def make(
        r: int = 2, seed: int = 0, of_w: float | None = None, full: bool = False, place: str = "", **more: Any
    ) -> str:
        run_id = make_run(r=r, seed=seed, **({"method": FULL} if full else {}), **more)
        folder = runs_dir / run_id
        for name, entry in (("config.yaml", {"path": place or str(base)}), ("metrics.json", {"precision": "float32"})):
            content = yaml.safe_load((folder / name).read_text())
            if name == "config.yaml":
                content["model"] |= entry
                (folder / name).write_text(yaml.safe_dump(content))
            else:
                (folder / name).write_text(json.dumps(content | entry))
        model = tiny_model("bert")
        if full:
            _train_all(model, seed)
        else:
            inject(model, LoRAConfig(r=r, alpha=16))
            freeze(model)
            randomise(model, seed=100 * r + seed)
            if of_w is not None:
                _follow(model, of_w)
        io.save(model, folder / "adapter")
        return run_id

    return make


@torch.no_grad()
def _train_all(model: torch.nn.Module, seed: int) -> None:
    """Every weight moves by noise, and by a direction that all seeds share."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        shared = torch.outer(torch.ones(len(parameter)), torch.ones(parameter[0].numel())).view_as(parameter)
        parameter += 0.01 * torch.randn_like(parameter) + 0.02 * shared
        parameter.requires_grad_(True)


@torch.no_grad()
def _follow(model: torch.nn.Module, factor: float) -> None:
    """delta_w of every adapter is `factor` times the top-r part of its W."""
    for _, layer in lora_layers(model):
        for part in layer.parts:
            U, S, Vh = torch.linalg.svd(layer.w0(part).double())
            A, B = layer.lora_A[part.name], layer.lora_B[part.name]
            A.copy_(Vh[: len(A)])
            B.copy_(factor / part.scaling * U[:, : len(A)] * S[: len(A)])
