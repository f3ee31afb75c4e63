"""Stored runs of a language model in the runner's format, made without training."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

# Task -> its metrics, the main one first, and whether its validation measures them or the loss alone.
METRICS: dict[str, tuple[tuple[str, ...], bool]] = {
    "text2sql": (("logical_form", "execution"), False),
    "text_rotten_tomatoes": (("accuracy",), True),
    "bbc_headlines": (("rouge_1", "rouge_2", "rouge_lf"), False),
}
REFERENCES = [" negative", " positive", " negative", " negative", " positive"]  # the commonest: 0.6
SIZES = {"full": 134_515_008, "frozen": 0, "norm_only": 35_136, "prefix_embed": 23_040, "prefix_layer": 138_240}


@pytest.fixture
def store(list_run: Callable[..., None], runs_dir: Path) -> Callable[..., str]:
    """Stores a run and lists it in sweep.jsonl; returns its run_id.

    test: the scores of its metrics, the main one first, or one for all; the test loss is 1 less the main one.
    validation: its main metric, or minus its loss. n: examples it had, of `asked`. With an error the run has failed,
    and its config is where the runner leaves it.
    """

    def make(
        method: Mapping[str, Any],
        test: float | Sequence[float] = 0.8,
        task: str = "text_rotten_tomatoes",
        seed: int = 0,
        lr: float = 1e-3,
        validation: float = 0.7,
        role: str = "study",
        n: int = 256,
        asked: int | None = None,
        shots: int = 0,
        epochs: int = 1,
        params: int | None = None,
        references: Sequence[str] = REFERENCES,
        error: str = "",
    ) -> str:
        names, measured = METRICS[task]
        fields = {"shots": shots, "shots_seed": seed} if task.startswith("text_") else {}
        config = {
            "model": {"name": "smollm2", "path": "asset:smollm2"},
            "task": {"name": task, "metric": names[0], "train_examples": asked or n} | fields,
            "method": dict(method),
            "training": {"lr": lr, "epochs": epochs, "batch_size": 8},
            "seed": seed,
        }
        run_id = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        if error:
            (runs_dir / f"{run_id}.failed").mkdir()
            (runs_dir / f"{run_id}.failed" / "config.yaml").write_text(yaml.safe_dump(config))
            list_run(run_id=run_id, role=role, error=error)
            return run_id
        values = list(test) if isinstance(test, Sequence) else [test] * len(names)
        scores = [("test", "loss", 1 - values[0]), *(("test", *pair) for pair in zip(names, values, strict=True))]
        scores += [("validation", names[0], validation)] if measured else []
        scores += [("validation", "loss", 0.4 if measured else -validation)]
        rank = method.get("r") or method.get("bottleneck") or 1
        metrics = {
            "trainable_params": params if params is not None else SIZES.get(method["name"], 57_600 * rank),
            "total_params": 134_515_008, "head_params": 0, "train_examples": n, "train_seconds": 0.0 if shots else 20.0,
            "tokens_per_second": None if method["name"] == "frozen" else 500.0, "peak_memory_bytes": 10**9,
            "main_metric": names[0], "validation_metric": names[0] if measured else "loss",
            "metrics": [dict(zip(("split", "metric", "value"), score, strict=True)) for score in scores],
        }  # fmt: skip
        folder = runs_dir / run_id
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        shown = "A demonstration of six words. Yes\n\n" * shots
        with (folder / "predictions.jsonl").open("w") as file:
            for place, reference in enumerate(references):
                entry = {"prompt": f"{shown}Review: {place}", "references": [reference], "output": f" of seed {seed}"}
                file.write(json.dumps(entry) + "\n")
        list_run(run_id=run_id, role=role)
        return run_id

    return make


@pytest.fixture
def fail(list_run: Callable[..., None]) -> Callable[[str, str], None]:
    """Lists a run that could not begin, as the runner does: by its overrides."""

    def add(overrides: str, error: str) -> None:
        list_run(run_id=overrides, role="study", error=error)

    return add
