"""The study of training steps, from made-up runs: gaps, rates, and phi(1,1) against numpy's SVD."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from analysis.study import run_study

STUDY = "steps"
Train = Callable[..., str]
RATES = {1: 3e-3, 4: 1e-3}  # by epochs


@pytest.fixture
def runs(train: Train, runs_dir: Path) -> dict[tuple[int, int], str]:
    """(epochs, seed) -> the run_id of LoRA; 100 examples in batches of 32 are four steps."""
    found = {}
    for (epochs, lr), seed in itertools.product(RATES.items(), range(3)):
        lora = train(r=2, seed=seed, lr=lr, test=0.7 + 0.01 * epochs + 0.001 * seed)
        full = train(seed=seed, full=True, lr=lr / 30, test=0.8 + 0.001 * seed)
        for run_id in (lora, full):
            config, metrics = runs_dir / run_id / "config.yaml", runs_dir / run_id / "metrics.json"
            content = yaml.safe_load(config.read_text())
            content["training"]["epochs"] = epochs
            config.write_text(yaml.safe_dump(content))
            metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"train_examples": 100}))
        found[epochs, seed] = lora
    return found


def first_direction(folder: Path, target: str) -> np.ndarray:
    A = load_file(folder / "adapter" / "adapter.safetensors")[f"{target}.lora_A"]
    return np.asarray(np.linalg.svd(A)[2][0])


def test_every_file_is_written_and_right(
    runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path, derive_again: Callable[..., None]
) -> None:
    outputs = {path.name for path in run_study(study_dir, runs_dir)} - {"provenance.json"}
    assert outputs == {"runs.csv", "table.csv", "gaps.csv", "phi.csv", "table.md", "steps.png"}
    table = pd.read_csv(study_dir / "table.csv").set_index(["label", "steps"])
    assert table["lr"].to_dict() == pytest.approx(
        {("lora", 4): 3e-3, ("lora", 16): 1e-3, ("full", 4): 1e-4, ("full", 16): 1e-3 / 30}, rel=1e-5
    )
    gaps = pd.read_csv(study_dir / "gaps.csv").set_index("steps")
    assert gaps["difference"].to_dict() == pytest.approx({4: -0.09, 16: -0.06})
    assert (gaps["pairs"] == 3).all()
    phi = pd.read_csv(study_dir / "phi.csv", dtype={"run_id": str, "other_run_id": str})
    assert len(phi) == 2 * 3 * 2, "two numbers of steps, three pairs of seeds, q and v"
    folders = [runs_dir / runs[4, seed] for seed in (0, 1)]
    pair = phi[(phi["run_id"] == min(f.name for f in folders)) & (phi["other_run_id"] == max(f.name for f in folders))]
    names = load_file(folders[0] / "adapter" / "adapter.safetensors")
    own = [name.removesuffix(".lora_A") for name in names if name.endswith(".q.lora_A")]
    wanted = [np.dot(*(first_direction(folder, name) for folder in folders)) ** 2 for name in own]
    assert len(own) == 2
    assert pair.set_index("weight_type")["phi"]["q"] == pytest.approx(np.mean(wanted), rel=1e-4)
    assert (phi["chance"] == 1 / 32).all()
    text = (study_dir / "table.md").read_text()
    assert "phi(1,1) of q, chance 0.031" in text and "(3 pairs)" in text and "rate of lora" in text
    derive_again(run_study, "gaps.csv")
