"""Stored runs and lists of studies, made without training, whose ids are those of their configs."""

import json
from pathlib import Path
from typing import Any

import yaml

from experiments.store import run_id

METHOD = {"name": "lora", "r": {"v": 4, "q": 8}, "alpha": 16, "weight_types": "q+v", "init": "gaussian"}


def definition(seed: int = 0, lr: float = 1e-5, **method: Any) -> dict[str, Any]:
    """What is stored as config.yaml."""
    return {
        "model": {"name": "minilm", "path": "asset:minilm"},
        "task": {"name": "rotten_tomatoes", "metric": "accuracy"},
        "method": METHOD | method,
        "training": {"lr": lr, "epochs": 2},
        "seed": seed,
        "recipe": 1,
    }


def store(results: Path, seed: int = 0, test: float = 0.8, written: int = 0, **about: Any) -> str:
    """Stores a run with an adapter, and with `written` predictions; returns its run_id."""
    config = definition(seed, **about)
    identifier = run_id(config)
    folder = results / "runs" / identifier
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter.safetensors").write_bytes(b"0" * 5_000_000)
    rows = [
        {"split": split, "metric": metric, "value": value}
        for split, value in (("validation", 0.1 + 0.2), ("test", test))
        for metric in ("loss", "accuracy")
    ]
    metrics = {
        "trainable_params": 8000, "train_seconds": 1.5, "tokens_per_second": None, "peak_memory_bytes": 10**9,
        "main_metric": "accuracy", "metrics": rows, "versions": {"torch": "2"}, "date": "2026-01-01",
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "history.csv").write_text("step,split,loss\n1,train,0.7\n2,train,0.30000000000000004\n")
    if written:
        lines = [
            {"prompt": f"a prompt {place}", "references": [["no", "yes"][place % 3 == 0]], "output": "é\n"}
            for place in range(written)
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return identifier


def fail(results: Path, seed: int, diverged: bool = True) -> str:
    """What a run that failed leaves; returns its run_id."""
    config = definition(seed)
    folder = results / "runs" / f"{run_id(config)}.failed"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    if diverged:
        (folder / "diverged.txt").write_text("the loss is nan")
    return run_id(config)


def listed(study_dir: Path, *entries: tuple[str, str] | tuple[str, str, str]) -> Path:
    """Writes sweep.jsonl of (run_id, role) and, for failures, (run_id, role, error); returns the study's folder."""
    study_dir.mkdir(parents=True, exist_ok=True)
    lines = [dict(zip(("run_id", "role", "error"), entry, strict=False)) for entry in entries]
    (study_dir / "sweep.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return study_dir
