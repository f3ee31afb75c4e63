"""Metrics: equal to scikit-learn and scipy, right by hand, and free of traces on disk."""

import os
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from experiments.metrics import label_metrics
from lora.config import InputError

RNG = np.random.default_rng(0)
PREDICTED, TRUE = RNG.integers(0, 2, 500), RNG.integers(0, 2, 500)
PREDICTED5, TRUE5 = RNG.integers(0, 5, 500), RNG.integers(0, 5, 500)
SCORE = RNG.normal(size=500)
NOISY = SCORE + RNG.normal(size=500)


@pytest.mark.parametrize(
    ("name", "predictions", "references", "expected"),
    [
        ("accuracy", PREDICTED5, TRUE5, sk.accuracy_score(TRUE5, PREDICTED5)),
        ("f1", PREDICTED, TRUE, sk.f1_score(TRUE, PREDICTED)),
        ("macro_f1", PREDICTED5, TRUE5, sk.f1_score(TRUE5, PREDICTED5, average="macro")),
        ("matthews_correlation", PREDICTED, TRUE, sk.matthews_corrcoef(TRUE, PREDICTED)),
        ("pearson", NOISY, SCORE, stats.pearsonr(SCORE, NOISY).statistic),
        ("spearman", NOISY, SCORE, stats.spearmanr(SCORE, NOISY).statistic),
        # By hand. Of 4, 3 are right; precision 1, recall 1/2; tp tn - fp fn = 2 over sqrt(1 * 2 * 2 * 3).
        ("accuracy", [1, 0, 0, 0], [1, 1, 0, 0], 0.75),
        ("f1", [1, 0, 0, 0], [1, 1, 0, 0], 2 / 3),
        ("macro_f1", [1, 0, 0, 0], [1, 1, 0, 0], (2 / 3 + 4 / 5) / 2),
        ("matthews_correlation", [1, 0, 0, 0], [1, 1, 0, 0], 2 / 12**0.5),
        ("pearson", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 1.0),
        ("pearson", [0.0, 1.0, 2.0], [1.0, 0.0, 1.0], 0.0),
        ("spearman", [1.0, 10.0, 100.0], [-1.0, -2.0, -3.0], -1.0),
        # A model that says one thing only: defined, and no better than nothing.
        ("f1", [0, 0, 0], [0, 1, 1], 0.0),
        ("matthews_correlation", [0, 0, 0], [0, 1, 1], 0.0),
        ("pearson", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),
        ("spearman", [2.0, 2.0, 2.0], [1.0, 2.0, 3.0], 0.0),
    ],
)
def test_value(name: str, predictions: list[float], references: list[float], expected: float) -> None:
    assert label_metrics.compute(name, predictions, references) == {name: pytest.approx(expected, abs=1e-12)}


def test_several_at_once() -> None:
    scores = label_metrics.compute(("accuracy", "f1"), [1, 0], [1, 1])
    assert scores == {"accuracy": 0.5, "f1": pytest.approx(2 / 3)}


@pytest.mark.parametrize("name", label_metrics.METRICS)
def test_is_an_evaluate_module(name: str) -> None:
    metric = label_metrics.load(name)
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    assert metric.description
    assert "@article" in metric.citation
    for value in (0, 1):
        metric.add_batch(predictions=[value], references=[value])
    assert metric.compute() == {name: pytest.approx(1.0)}


def test_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    label_metrics.compute("accuracy", [1], [1])
    assert os.listdir(tmp_path) == []


def test_bad_input() -> None:
    with pytest.raises(InputError, match="unknown metric 'bleu'.*accuracy"):
        label_metrics.compute("bleu", [1], [1])
    with pytest.raises(ValueError, match="Mismatch in the number"):
        label_metrics.compute("accuracy", [1, 0], [1])
