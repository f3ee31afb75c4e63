"""What became of each test item: packed, in the records, and paired between runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from experiments import items, methods, tasks
from experiments.config import ModelSettings
from experiments.items import Items
from experiments.models import choose_runtime
from experiments.problems.classification import Classification
from experiments.problems.language import Language
from experiments.records.items import items as paired
from experiments.records.source import Runs
from experiments.records.transfer import pack, unpack
from lora.config import InputError

Cli = Callable[..., Any]  # conftest.cli


@pytest.mark.parametrize("n", [1, 7, 8, 9, 2001])
def test_what_is_packed_comes_back(n: int) -> None:
    random = np.random.default_rng(n)
    right, weight = random.random(n) < 0.7, random.integers(1, 70_000, n)
    loss = random.lognormal(size=n)
    packed = json.loads(json.dumps(items.pack(Items(right, loss, weight), "0123456789ab")))
    found = items.unpack(packed)
    assert found.correct is not None and found.loss is not None and found.weight is not None
    assert (found.correct == right).all() and found.accuracy == right.mean()
    assert found.loss == pytest.approx(loss, rel=5e-4)
    assert (found.weight == np.minimum(weight, 65_535)).all()
    assert items.unpack(items.pack(found, "x")).loss.tobytes() == found.loss.tobytes(), "kept once, it stays"  # type: ignore[union-attr]


def test_two_thousand_items_take_some_hundred_bytes() -> None:
    packed = items.pack(Items(correct=np.arange(2000) % 3 == 0), "0123456789ab")
    assert len(json.dumps(packed)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0}, {"n": "8"}, {"of": 3}, {"correct": "AA=="}, {"correct": "not base64!"},
        {"correct": None, "loss": "AA=="}, {"correct": None},
    ],
)  # fmt: skip
def test_damaged_items_are_said_to_be(change: dict[str, Any]) -> None:
    packed = items.pack(Items(correct=np.ones(20, bool)), "0123456789ab") | change
    packed = {name: value for name, value in packed.items() if value is not None}
    fault = items.fault(packed)
    assert fault and fault.startswith("its items are damaged (") and "\n" not in fault


def test_items_are_those_of_the_stored_model_one_by_one(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    assert cli(*tiny, "method=lora").code == 0
    assert cli(*tiny, "method=bitfit", "seed=3").code == 0
    folders = sorted(path for path in (tmp_path / "results" / "runs").iterdir() if not path.name.startswith("."))
    listed = tmp_path / "results" / "smoke" / "alpha"
    listed.mkdir(parents=True)
    lines = [json.dumps({"run_id": folder.name, "role": "study"}) + "\n" for folder in folders]
    (listed / "sweep.jsonl").write_text("".join(lines))
    runs = list(Runs(listed, tmp_path / "results" / "runs"))
    found = paired(runs)
    for run, right in zip(runs, found, strict=True):
        assert (right == _by_hand(run.place, tiny)).all()
        scores = {(row["split"], row["metric"]): row["value"] for row in run.metrics["metrics"]}
        assert right.mean() == pytest.approx(scores["test", "accuracy"])
        assert run.metrics["validation_accuracy"] == pytest.approx(scores["validation", "accuracy"])
        assert run.metrics["majority_share"] == 0.5 and isinstance(run.metrics["collapsed"], bool)
    # The records have them too, and give them back where the runs are gone.
    pack(listed, tmp_path / "results" / "runs")
    (tmp_path / "results" / "runs").rename(tmp_path / "away")
    (listed / "sweep.jsonl").unlink()
    assert (paired(Runs(listed, tmp_path / "results" / "runs")) == found).all()
    unpack(listed, tmp_path / "results")
    assert (paired(Runs(listed, tmp_path / "results" / "runs")) == found).all()


def _by_hand(folder: Path, tiny: list[str]) -> list[bool]:
    """Each test item by itself, in the order of the task, by the adapter that the run has stored."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    path = next(part.partition("=")[2] for part in tiny if part.startswith("model.path="))
    data = next(part.partition("=")[2] for part in tiny if part.startswith("task.path="))
    config["model"]["path"] = path
    config["task"] |= dict.fromkeys(tasks.PATH_FIELDS) | {"path": data}
    precision = {"float32": "fp32", "bfloat16": "bf16"}[json.loads((folder / "metrics.json").read_text())["precision"]]
    given = tasks.load(config["task"])
    assert isinstance(given, tasks.TaskData)
    runtime = choose_runtime("cpu", precision, 1)
    loaded = Classification(ModelSettings.of(config["model"]), config["task"], config["method"], given, runtime, 1)
    methods.load(loaded.model, config["method"], loaded.heads, folder / "adapter")
    loaded.model.eval()
    found = []
    for text, label in zip(given.test["text"], given.test["label"], strict=True):
        encoded = loaded.tokenizer(text, return_tensors="pt", truncation=True, max_length=config["task"]["max_length"])
        with torch.inference_mode(), loaded.runtime.autocast:
            found.append(int(loaded.model(**encoded).logits.argmax()) == label)
    return found


def test_runs_of_other_items_are_not_paired(cli: Cli, tiny: list[str], tmp_path: Path) -> None:
    for more in ([], ["task.test_examples=9"]):
        assert cli(*tiny, *more).code == 0
    runs_dir = tmp_path / "results" / "runs"
    listed = tmp_path / "results" / "smoke" / "alpha"
    listed.mkdir(parents=True)
    names = sorted(path.name for path in runs_dir.iterdir() if not path.name.startswith("."))
    (listed / "sweep.jsonl").write_text("".join(json.dumps({"run_id": n, "role": "study"}) + "\n" for n in names))
    with pytest.raises(InputError, match=rf"runs {names[0]} and {names[1]} are not of the same test items"):
        paired(Runs(listed, runs_dir))
    with pytest.raises(InputError, match=r"has no loss of its test items"):
        paired(list(Runs(listed, runs_dir))[:1], "loss")
    with pytest.raises(InputError, match="there is no run"):
        paired([])
    (runs_dir / names[0] / items.FILE).unlink()
    with pytest.raises(InputError, match=rf"run {names[0]} has no test items; .* trains it again"):
        paired(Runs(listed, runs_dir))


def test_the_losses_of_a_language_model_add_up(decoders: dict[str, Path]) -> None:
    rows = [{"prompt": f"count {i}:", "completion": " one" * (1 + i % 5)} for i in range(12)]
    inputs = [{"prompt": row["prompt"], "references": [row["completion"]]} for row in rows]
    from datasets import Dataset

    data = tasks.TextData(Dataset.from_list(rows), Dataset.from_list(inputs), Dataset.from_list(inputs), "rouge_lf")
    config = {
        "model": {"name": "gpt2", "path": str(decoders["gpt2"])},
        "task": {
            "max_length": 64, "format": "plain",
            "generation": {"beams": 1, "length_penalty": 1.0, "no_repeat_ngram": 0, "max_new_tokens": 2},
        },
        "method": {"name": "full"},
    }  # fmt: skip
    runtime = choose_runtime("cpu", "fp32", 1)
    loaded = Language(ModelSettings.of(config["model"]), config["task"], config["method"], data, runtime, 5)
    found = loaded.evaluate("validation")
    loss, weight = found.items.loss, found.items.weight
    assert loss is not None and weight is not None and found.items.correct is None
    assert (loss * weight).sum() / weight.sum() == pytest.approx(found.scores["loss"], rel=1e-6)
    with torch.inference_mode():
        alone = [loaded.loss([row]).item() for row in loaded.rows["validation"]]
    assert loss == pytest.approx(alone, rel=1e-4)
    assert weight.tolist() == [2 + i % 5 for i in range(12)], "its words, and the mark of the end"
