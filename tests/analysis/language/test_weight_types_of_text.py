"""Table 5 where text is written: sets are compared by the test loss, and the score stands beside it."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from analysis.studies.weight_types.study import STUDY as WEIGHT_TYPES

STUDY = "weight_types"
LOSSES = {"q": (0.40, 0.42, 0.415), "q+v": (0.30, 0.33, 0.31), "up": (0.20, 0.22, 0.21)}


@pytest.fixture
def grid(store: Callable[..., str]) -> None:
    for weights, losses in LOSSES.items():
        method = {"name": "lora", "r": 8, "alpha": 16, "weight_types": weights}
        for seed, loss in enumerate(losses):
            # The loss is 1 less this score; execution is a metric beside.
            store(method, [1 - loss, 0.5], "text2sql", seed, validation=-loss, params=1000)


def test_sets_are_compared_by_the_loss(grid: None, study_dir: Path, runs_dir: Path) -> None:
    WEIGHT_TYPES.build(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv").query("source == 'ours'")
    assert list(zip(table["metric"], table["weight_types"], strict=True)) == [
        (metric, weights) for metric in ("loss", "logical_form") for weights in LOSSES
    ]
    differences = pd.read_csv(study_dir / "differences.csv").set_index("weight_types")
    assert set(differences["metric"]) == {"loss"} and set(differences.index) == {"q", "up"}
    for weights in ("q", "up"):
        found = stats.ttest_rel(LOSSES[weights], LOSSES["q+v"])
        assert differences.loc[weights, "p"] == pytest.approx(found.pvalue, rel=1e-4)
    text = (study_dir / "table.md").read_text()
    assert "- q+v has the best mean in 0 of 1 comparisons" in text
    assert "the best mean of 3 sets is up 0.210 ± 0.025 (3), the worst q 0.412 ± 0.026 (3); q+v" in text
    assert "Better than q+v: up; worse: q." in text
    head = next(line for line in text.splitlines() if line.startswith("| weights"))
    assert "| test loss ↓, 1,000 parameters" in head and "| logical_form, 1,000 parameters" in head
    assert any(line.startswith("| up ") and "-0.103 ±" in line and line.endswith("* |") for line in text.splitlines())
    answer = text.splitlines()[2]
    assert "the best set of weights on validation data is up (3 seeds); worse on test data: q, q+v." in answer
