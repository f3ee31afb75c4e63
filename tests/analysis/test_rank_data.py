import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from analysis.studies import rank_data
from lora.config import InputError

STUDY = "rank_data"
# n -> rank -> test accuracy by seed
SCORES = {
    150: {1: (0.60, 0.62, 0.61), 64: (0.61, 0.60, 0.62)},
    2400: {1: (0.70, 0.71, 0.72), 64: (0.76, 0.78, 0.77)},
}


@pytest.fixture
def store(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> Callable[..., None]:
    """Stores a run on n examples: a run of another learning rate to `make_run`, which knows no n."""

    def add(n: int, r: int, seed: int, score: float, epochs: int = 1) -> None:
        listed = study_dir / "sweep.jsonl"
        before = listed.read_text() if listed.exists() else ""
        run_id = make_run(r=r, seed=seed, test=score, lr=1e-6 * n)
        folder, renamed = runs_dir / run_id, f"{n}-{r}-{seed}"
        for name, load in (("config.yaml", yaml.safe_load), ("metrics.json", json.loads)):
            content = load((folder / name).read_text())
            if name == "config.yaml":
                content["task"]["train_examples"] = n
                content["training"] |= {"lr": 1e-3, "epochs": epochs}
            else:
                content["train_examples"] = n
            (folder / name).write_text(json.dumps(content))
        folder.rename(runs_dir / renamed)
        listed.write_text(before)
        list_run(run_id=renamed, role="study")

    return add


@pytest.fixture
def study(store: Callable[..., None]) -> None:
    for n, ranks in SCORES.items():
        for r, scores in ranks.items():
            for seed, score in enumerate(scores):
                store(n, r, seed, score, epochs=2400 // n)


def test_what_rank_gains_at_each_number_of_examples(study: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = rank_data.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "gains.csv", "table.md", "rank_data.png"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)
    gains = pd.read_csv(study_dir / "gains.csv").set_index("train_examples")
    tests = {n: stats.ttest_rel(ranks[64], ranks[1]) for n, ranks in SCORES.items()}
    for n, ranks in SCORES.items():
        assert gains.loc[n, "difference"] == pytest.approx(np.mean(ranks[64]) - np.mean(ranks[1]), abs=1e-6)
    small, large = sorted(test.pvalue for test in tests.values())
    assert gains["p_holm"].tolist() == pytest.approx([max(large, 2 * small), 2 * small], rel=1e-4)
    table = pd.read_csv(study_dir / "table.csv").set_index(["train_examples", "r"])
    assert table.loc[(2400, 64), "mean"] == pytest.approx(0.77)
    text = (study_dir / "table.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["n", "epochs", "r = 1", "r = 64", "r = 64 minus r = 1"]
    assert rows[2][:3] == ["150", "16", "61.0 ± 2.5 (3)"]
    assert rows[3][0] == "2400" and rows[3][4].startswith("+6.0 ± 2.5, p 0.018 * (3 pairs)")
    assert sorted(pd.read_csv(study_dir / "runs.csv")["train_examples"].unique()) == [150, 2400]


def test_one_rank_gains_nothing(store: Callable[..., None], study_dir: Path, runs_dir: Path) -> None:
    store(150, 8, 0, 0.6)
    rank_data.STUDY.build(study_dir, runs_dir)
    assert "minus" not in (study_dir / "table.md").read_text().split("##")[1]


def test_other_methods_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    run_id = make_run(method={"name": "full"})
    metrics = runs_dir / run_id / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"train_examples": 10}))
    with pytest.raises(InputError, match="no rank r"):
        rank_data.STUDY.build(study_dir, runs_dir)


def test_two_runs_of_a_seed_are_refused(
    store: Callable[..., None], list_run: Callable[..., None], study: None, study_dir: Path, runs_dir: Path
) -> None:
    import shutil

    shutil.copytree(runs_dir / "150-1-0", runs_dir / "again")
    list_run(run_id="again", role="study")
    with pytest.raises(InputError, match="same seed with different settings"):
        rank_data.STUDY.build(study_dir, runs_dir)
