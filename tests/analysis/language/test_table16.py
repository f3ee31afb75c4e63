from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.studies import table16
from lora.config import InputError

STUDY = "table16"
LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16, "weight_types": "q+v"}
FULL = {"name": "full"}
PREFIX = {"name": "prefix_embed", "l_p": 32, "l_i": 8}
# n -> (asked for, epochs, LoRA's accuracy by seed, full's)
SIZES = {
    100: (100, 4, (0.60, 0.64, 0.63), (0.58, 0.60, 0.62)),
    1000: (1000, 1, (0.70, 0.71, 0.73), (0.72, 0.72, 0.71)),
    8530: (10_000, 1, (0.85, 0.86, 0.85), (0.86, 0.86, 0.88)),
}


@pytest.fixture
def study(store: Callable[..., str]) -> None:
    for n, (asked, epochs, *scores) in SIZES.items():
        for method, values, lr in ((LORA, scores[0], 3e-3), (FULL, scores[1], 1e-4), (PREFIX, (0.55, 0.5, 0.5), 3e-2)):
            for seed, score in enumerate(values):
                store(method, score, seed=seed, n=n, asked=asked, epochs=epochs, lr=lr)


def test_scores_and_tests_at_each_number_of_examples(study: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = table16.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "table.md", "table16.png", "samples.md", "samples.csv"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)
    both = pd.read_csv(study_dir / "table.csv").set_index(["metric", "train_examples", "label"])
    table = both.loc["accuracy"]
    others = (0.55, 0.5, 0.5)
    for n, (_, epochs, lora, full) in SIZES.items():
        row = table.loc[(n, "lora")]
        assert row["mean"] == pytest.approx(np.mean(lora), rel=1e-4)
        assert row["epochs"] == epochs
        assert row["all_examples"] == (n == 8530)
        p = stats.ttest_rel([lora, others], [full, full], axis=1).pvalue
        held = 2 * p[0] if p[0] <= p[1] else max(2 * p[1], p[0])
        assert row["full_difference"] == pytest.approx(np.mean(lora) - np.mean(full), rel=1e-4)
        assert row["full_p_holm"] == pytest.approx(min(held, 1), rel=1e-4)
        assert both.loc[("loss", n, "lora"), "full_difference"] == pytest.approx(-row["full_difference"], rel=1e-3)
    runs = pd.read_csv(study_dir / "runs.csv")
    assert sorted(runs["train_examples"].unique()) == [100, 1000, 8530]


def test_report_has_epochs_floor_and_the_papers_row(study: None, study_dir: Path, runs_dir: Path) -> None:
    table16.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- Always the commonest answer: 60.0." in text
    assert "- n = 100: 4 epochs, so 400 examples are seen." in text
    assert "- n = 8,530 (all): 1 epoch, so 8,530 examples are seen." in text
    assert "One for all n: none is tuned for few examples." in text
    assert "- n = 100: best mean lora, 0.377 ± 0.052 (3); lora minus full -0.023 ± 0.038" in text
    assert "- n = 100: best mean lora, 62.3 ± 5.2 (3); lora minus full +2.3 ± 3.8" in text
    of_loss, of_accuracy = text.split("test accuracy)")
    assert "0.377 ± 0.052 (3)" in of_loss
    assert "91.7" not in of_loss  # the paper has accuracies alone
    rows = [line for line in of_accuracy.splitlines() if line.startswith("| lora")]
    assert [cell.strip() for cell in rows[0].split("|")][4:-1] == [
        "62.3 ± 5.2 (3)", "71.3 ± 3.8 (3)", "85.3 ± 1.4 (3)", "63.8", "85.6", "89.2", "91.7",
    ]  # fmt: skip
    assert "Minus full, at each n:" in text
    assert "Minus lora, at each n:" in text
    assert len(rows) == 2  # beside itself it has no difference

    samples = pd.read_csv(study_dir / "samples.csv")
    lora = samples[samples["label"] == "lora"]["settings"].unique().tolist()
    assert lora == ["r=8, q+v, n=100", "r=8, q+v, n=1000", "r=8, q+v, n=8530"]


def test_other_rates_and_epochs_are_told(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(LORA, n=100, epochs=4, lr=1e-3)
    store(FULL, n=100, epochs=2, lr=1e-4)
    store(LORA, n=200, epochs=1, lr=3e-3)
    table16.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- n = 100: 2 or 4 epochs, so 200 or 400 examples are seen." in text
    assert "- Learning rates: full 0.0001; lora 0.001, 0.003.\n" in text
    assert "lora minus full +0.0.\n" in text
    assert "n = 200: best mean lora, 80.0 (1).\n" in text


def test_text_that_is_written_has_no_floor(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(LORA, (0.2, 0.3), "text2sql", n=100)
    table16.STUDY.build(study_dir, runs_dir)
    assert "commonest" not in (study_dir / "table.md").read_text()


def test_two_runs_of_a_seed_at_one_n_are_refused(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(LORA, n=100, epochs=1)
    store(LORA, n=200, epochs=1)
    table16.STUDY.build(study_dir, runs_dir)
    store(LORA, n=100, epochs=2)
    with pytest.raises(InputError, match=r"settings r=8, q\+v, train_examples 100, seed 0"):
        table16.STUDY.build(study_dir, runs_dir)
