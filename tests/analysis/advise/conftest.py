"""Tiny models on disk, a data file that one word decides, and the command as it is typed."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from analysis.advise.subject import Asked, Subject
from experiments import assets

GOOD, BAD = "a warm and wonderful film", "a dull and dreadful film"


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, 32 wide, with random weights and MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertForSequenceClassification(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets.fetch("minilm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 reviews with labels."""
    file = tmp_path_factory.mktemp("data") / "reviews.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows([f"{(BAD, GOOD)[row % 2]} number {row}", ("bad", "good")[row % 2]] for row in range(300))
    return file


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with completions."""
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"prompt": f"count to {row % 5}:", "completion": " one two"} for row in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def subject_of(tmp_path: Path, reviews: Path, pairs: Path) -> Callable[..., Subject]:
    """A subject of a tiny model of some kind, of which the config alone is read."""

    def make(kind: str, *settings: str) -> Subject:
        tiny_model(kind).config.save_pretrained(tmp_path / kind)  # type: ignore[union-attr, operator]
        task = reviews if "bert" in kind else pairs
        return Subject(Asked(str(tmp_path / kind), str(task), "smoke", str(tmp_path / "results"), settings))

    return make
