"""Study folders and stored runs in the runner's format, made without training."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import yaml
from matplotlib.layout_engine import ConstrainedLayoutEngine

LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16, "dropout": 0.0, "weight_types": "q+v"}


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the pixels, and panels where they are at first, not set out anew: what is drawn is the same, in half
    the time. The commands of test_make draw as a user's do."""
    monkeypatch.setitem(plt.rcParams, "savefig.dpi", 100)
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)


@pytest.fixture
def study_dir(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An empty study folder results/quick/<study>; the test module's STUDY names it."""
    folder = tmp_path / "results" / "quick" / str(request.module.STUDY)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "runs"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def list_run(study_dir: Path) -> Callable[..., None]:
    """Adds a line to sweep.jsonl."""

    def add(**entry: str) -> None:
        with (study_dir / "sweep.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    return add


@pytest.fixture
def make_run(list_run: Callable[..., None], runs_dir: Path) -> Callable[..., str]:
    """Stores a run and lists it in sweep.jsonl; returns its run_id.

    method: its fields as in the config, LoRA's if not given. With an error the run has failed, and its config is where
    the runner leaves it.
    """

    def make(
        r: int = 8,
        seed: int = 0,
        weight_types: str = "q+v",
        task: str = "rotten_tomatoes",
        lr: float = 1e-3,
        test: float = 0.8,
        validation: float = 0.79,
        role: str = "study",
        method: Mapping[str, Any] | None = None,
        trainable_params: int | None = None,
        head_params: int = 0,
        error: str = "",
    ) -> str:
        config: dict[str, Any] = {
            "model": {"name": "minilm", "path": "cache/minilm"},
            "task": {"name": task},
            "method": dict(method or LORA | {"r": r, "weight_types": weight_types}),
            "training": {"lr": lr, "epochs": 2, "batch_size": 32},
            "seed": seed,
        }
        run_id = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        if error:
            (runs_dir / f"{run_id}.failed").mkdir()
            (runs_dir / f"{run_id}.failed" / "config.yaml").write_text(yaml.safe_dump(config))
            list_run(run_id=run_id, role=role, error=error)
            return run_id
        metrics = {
            "run_id": run_id, "trainable_params": trainable_params or 1000 * r, "total_params": 10**6,
            "head_params": head_params, "train_seconds": 2.0,
            "tokens_per_second": 100.0, "peak_memory_bytes": 10**9, "precision": "fp32", "main_metric": "accuracy",
            "metrics": [
                {"split": split, "metric": metric, "value": value}
                for split, value in (("validation", validation), ("test", test))
                for metric in ("accuracy", "f1")
            ],
            "versions": {"torch": "2"}, "machine": {"cpus": 2}, "date": "2026-01-01",
        }  # fmt: skip
        (runs_dir / run_id).mkdir(exist_ok=True)
        (runs_dir / run_id / "config.yaml").write_text(yaml.safe_dump(config))
        (runs_dir / run_id / "metrics.json").write_text(json.dumps(metrics))
        list_run(run_id=run_id, role=role)
        return run_id

    return make


@pytest.fixture
def derive_again(study_dir: Path, runs_dir: Path) -> Callable[..., None]:
    """Builds a study, then once more without the adapters and what was derived: the same bytes."""

    def check(build: Callable[[Path, Path], list[Path]], *derived: str) -> None:
        build(study_dir, runs_dir)
        first = {path.name: path.read_bytes() for path in study_dir.iterdir() if path.suffix in (".csv", ".md")}
        for run in runs_dir.iterdir():
            shutil.rmtree(run / "adapter", ignore_errors=True)
        for name in ("table.csv", "table.md", "runs.csv", *derived):
            (study_dir / name).unlink()
        build(study_dir, runs_dir)
        assert {name: (study_dir / name).read_bytes() for name in first} == first

    return check
