"""A tiny random model on disk, a tiny data file, and the command line called in this process."""

import contextlib
import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from networks import DECODERS
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)

from experiments import assets, run
from experiments.metrics.text_metrics import sql
from experiments.metrics.text_metrics._sandbox import Sandbox

GOOD, BAD = "a warm and wonderful film", "a dull and dreadful film"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, with random weights and MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForSequenceClassification(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets.fetch("minilm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 reviews that one word decides."""
    file = tmp_path_factory.mktemp("data") / "reviews.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows([f"{(BAD, GOOD)[row % 2]} number {row}", ("bad", "good")[row % 2]] for row in range(120))
    return file


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """`python -m experiments.run ARGS`, with its results in tmp_path/results, computed in this process."""

    def call(*args: str) -> Result:
        places = [f"results_dir={tmp_path}/results", "engine.jobs=1"]
        monkeypatch.setattr(sys, "argv", ["experiments.run", *places, *args])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        code = run.command().code
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def tiny(tiny_model: Path, reviews: Path) -> list[str]:
    """Overrides of a run that takes a second."""
    return [
        "model=hub",
        f"model.path={tiny_model}",
        "task=local",
        f"task.path={reviews}",
        "preset=smoke",
        "training.lr=1e-2",
        "runtime.threads=1",
    ]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(assets.fetch("smollm2"))


@pytest.fixture(scope="session")
def decoders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> dict[str, Path]:
    """Folders of tiny random decoders whose outputs are far from uniform."""
    folders = {}
    for family, sizes in DECODERS.items():
        folders[family] = tmp_path_factory.mktemp("decoders") / family
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **sizes)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folders[family])
        tokenizer.save_pretrained(folders[family])
    return folders


@pytest.fixture
def one_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process for all queries of a test, where the metric starts one for each list of outputs."""
    with Sandbox() as shared:
        monkeypatch.setattr(sql, "Sandbox", lambda: contextlib.nullcontext(shared))
        yield
