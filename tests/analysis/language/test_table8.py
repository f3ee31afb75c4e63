from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.maths import statistics
from analysis.studies import table8

STUDY = "table8"
LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16, "weight_types": "q+v"}
FULL, FROZEN = {"name": "full"}, {"name": "frozen"}
PROMPTS = {0: (0.62, 0.62, 0.62), 2: (0.50, 0.60, 0.61), 4: (0.66, 0.64, 0.68)}
TRAINED = {16: (0.50, 0.55, 0.52), 32: (0.67, 0.64, 0.70), 64: (0.60, 0.63, 0.62), 128: (0.80, 0.82, 0.81)}


@pytest.fixture
def study(store: Callable[..., str]) -> None:
    for seed in (0, 1, 2):
        for shots, scores in PROMPTS.items():
            store(FROZEN, scores[seed], seed=seed, shots=shots)
        for n, scores in TRAINED.items():
            store(LORA, scores[seed], seed=seed, n=n, epochs=2, lr=3e-3)
        store(FULL, 0.84 + seed / 100, seed=seed, n=128, lr=1e-4)


def test_prompts_and_training_on_one_scale(study: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = table8.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "table.md", "table8.png", "samples.md", "samples.csv"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)
    table = pd.read_csv(study_dir / "table.csv")
    assert table["label"].tolist() == ["frozen"] * 3 + ["full"] + ["lora"] * 4
    prompts = table[table["label"] == "frozen"].set_index("shots")
    assert prompts["exact"].tolist() == [True, False, False]
    assert np.isnan(prompts.loc[0, "interval"])
    assert prompts.loc[2, ["low", "high"]].tolist() == [0.50, 0.61]
    assert prompts["best"].tolist() == [False, False, True]
    assert prompts["prompt_words"].tolist() == [2, 2 + 2 * 6, 2 + 4 * 6]
    lora = table[table["label"] == "lora"].set_index("train_examples")
    for n, scores in TRAINED.items():
        welch = stats.ttest_ind(scores, PROMPTS[4], equal_var=False)
        low, high = welch.confidence_interval()
        assert lora.loc[n, "difference"] == pytest.approx(np.mean(scores) - np.mean(PROMPTS[4]), rel=1e-4)
        assert lora.loc[n, "difference_interval"] == pytest.approx((high - low) / 2, rel=1e-4)
        assert lora.loc[n, "p"] == pytest.approx(welch.pvalue, rel=1e-4)
    assert (lora["p_holm"] >= lora["p"]).all()


def test_report_says_from_how_many_examples_training_is_better(study: None, study_dir: Path, runs_dir: Path) -> None:
    table8.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- Best prompt: 4 demonstrations, 66.0 ± 5.0 (3)." in text
    assert "- 2 demonstrations: 11.0 points from the worst to the best of 3 draws." in text
    assert "- 0 demonstrations" not in text
    assert (
        "- lora (r=8, q+v), tried at n = 16, 32, 64, 128: mean above the best prompt's: from n = 32 (but not at 64); "
        "told apart from it, by the corrected p: from n = 128." in text
    )
    assert "- full, tried at n = 128: mean above the best prompt's: from n = 128;" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    zero = next(row for row in rows if row[:3] == ["frozen", "–", "0"])
    assert zero[3:] == ["–", "–", "–", "62.0 (3)", "62.0", "62.0", "–", "2", "–"]
    assert ["demonstrations", "66.0 ± 5.0 (3), 4 shown", "40.6", "69.0"] in rows
    assert ["full fine-tuning", "85.0 ± 2.5 (3), n = 128", "89.5", "85.4"] in rows
    assert ["lora", "81.0 ± 2.5 (3), n = 128", "–", "–"] in rows
    assert "- Always the commonest answer: 60.0." in text

    samples = pd.read_csv(study_dir / "samples.csv")
    settings = samples["settings"].unique().tolist()
    assert settings[:5] == ["shots=0", "shots=2", "shots=4", "n=128", "r=8, q+v, n=16"]
    assert samples["input"].str.startswith("Review").all()  # the shortest: without demonstrations


def test_not_reached(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(FROZEN, 0.7)
    store(LORA, 0.6, n=16)
    table8.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "mean above the best prompt's: not reached; told apart from it, by the corrected p: not reached." in text
    assert "- Best prompt: 0 demonstrations, 70.0 (1)." in text


def test_without_a_frozen_model_nothing_is_compared(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(LORA, 0.6, n=16)
    table8.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- No run of the frozen model" in text
    assert pd.read_csv(study_dir / "table.csv")["difference"].isna().all()


def test_without_training_there_are_prompts_alone(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for seed in (0, 1):
        store(FROZEN, 0.6 + seed / 10, seed=seed, shots=2)
    table8.STUDY.build(study_dir, runs_dir)
    assert "10.0 points from the worst to the best of 2 draws" in (study_dir / "table.md").read_text()


def test_one_score_is_compared_by_the_spread_of_the_others_alone() -> None:
    ours, one = pd.Series([0.70, 0.74, 0.75]), pd.Series([0.6])
    found = statistics.unpaired(ours, one, exact=True)
    assert found.p == pytest.approx(stats.ttest_1samp(ours, 0.6).pvalue)
    assert found.difference_interval == pytest.approx(4.302653 * ours.std() / 3**0.5, rel=1e-6)
    assert statistics.unpaired(ours, pd.Series([0.6] * 3), exact=True) == pytest.approx(found)
    assert np.isnan(statistics.unpaired(ours, one).p)
    assert np.isnan(statistics.unpaired(pd.Series([0.7]), ours).p)
    assert np.isnan(statistics.unpaired(pd.Series([0.7, 0.7]), pd.Series([0.6, 0.6])).p)


def test_passing_counts_larger_numbers_that_do_not() -> None:
    rows = pd.DataFrame(
        {
            "train_examples": [64, 16, 32, 128, 256],
            "difference": [-0.01, -0.1, 0.02, 0.1, 0.05],
            "p_holm": [0.9, 0.01, np.nan, 0.04, 0.051],
        }
    )
    assert table8.above(rows) == (32, [64])
    assert table8.told_apart(rows) == (128, [256])
    assert table8.told_apart(rows.assign(p_holm=0.06)) == (None, [])
    assert table8.above(rows.assign(difference=np.nan)) == (None, [])
