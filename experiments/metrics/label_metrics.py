"""Metrics as local `evaluate` modules over scikit-learn and scipy: nothing is fetched, nothing is written to disk.

`compute("f1", predictions, references)` is the short way; `load("f1")` gives the evaluate.Metric, which also takes
batches (add_batch) and combines with others (evaluate.combine).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import evaluate
import numpy as np
import numpy.typing as npt
from datasets import Features, Value
from scipy import stats
from sklearn import metrics as sklearn_metrics

from lora.config import InputError

_SKLEARN = """@article{scikit-learn, title={Scikit-learn: Machine Learning in Python},
author={Pedregosa, F. and others}, journal={Journal of Machine Learning Research}, volume={12}, pages={2825--2830},
year={2011}}"""
_SCIPY = """@article{scipy, title={SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python},
author={Virtanen, P. and others}, journal={Nature Methods}, volume={17}, pages={261--272}, year={2020}}"""

Values = Sequence[float] | npt.NDArray[Any]


class LocalMetric(evaluate.Metric):
    """An evaluate.Metric that keeps its data in memory. A subclass's docstring is its description."""

    citation: str
    dtype: Literal["int64", "float64"]  # of a prediction and of a reference

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=True, **kwargs)

    def _build_data_dir(self) -> str:
        # The base class makes a folder in the user's cache here. In memory there is no use for one.
        return ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(type(self).__doc__),
            citation=type(self).citation,
            inputs_description=f"predictions and references: {self.dtype}, one each an example.",
            features=Features({"predictions": Value(self.dtype), "references": Value(self.dtype)}),
        )

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, float]:
        # Lists, not the info's format="numpy": that rounds to float32, which makes ties that the data do not have.
        return {self.name: self.value(np.asarray(predictions), np.asarray(references))}

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        """The metric of two arrays of shape (n,), class indices or floats."""
        raise NotImplementedError


class Accuracy(LocalMetric):
    """The share of predictions that equal the reference, in [0, 1]."""

    citation = _SKLEARN
    dtype = "int64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return float(sklearn_metrics.accuracy_score(references, predictions))


class F1(LocalMetric):
    """F1 of class 1, in [0, 1]: the harmonic mean of its precision and recall (GLUE: MRPC, QQP). Two classes only."""

    citation = _SKLEARN
    dtype = "int64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return float(sklearn_metrics.f1_score(references, predictions, average="binary", zero_division=0))


class MacroF1(LocalMetric):
    """The unweighted mean over classes of the F1 of each, in [0, 1]: for classes of unequal sizes."""

    citation = _SKLEARN
    dtype = "int64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return float(sklearn_metrics.f1_score(references, predictions, average="macro", zero_division=0))


class MatthewsCorrelation(LocalMetric):
    """Matthews' correlation coefficient, in [-1, 1] (GLUE: CoLA); 0 where only one class is predicted."""

    citation = _SKLEARN
    dtype = "int64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return float(sklearn_metrics.matthews_corrcoef(references, predictions))


class Pearson(LocalMetric):
    """Pearson's linear correlation, in [-1, 1] (GLUE: STS-B); 0 where one side is constant."""

    citation = _SCIPY
    dtype = "float64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return 0.0 if _constant(predictions, references) else float(stats.pearsonr(predictions, references).statistic)


class Spearman(LocalMetric):
    """Spearman's rank correlation, in [-1, 1] (GLUE: STS-B); 0 where one side is constant."""

    citation = _SCIPY
    dtype = "float64"

    def value(self, predictions: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
        return 0.0 if _constant(predictions, references) else float(stats.spearmanr(predictions, references).statistic)


def _constant(*arrays: npt.NDArray[Any]) -> bool:
    # A correlation with a constant is undefined (nan in scipy); a model that has learnt nothing scores 0, as in GLUE's
    # Matthews correlation, and a run's table stays numeric.
    return any(np.ptp(array) == 0 for array in arrays)


METRICS: dict[str, type[LocalMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "matthews_correlation": MatthewsCorrelation,
    "pearson": Pearson,
    "spearman": Spearman,
}


def load(name: str) -> LocalMetric:
    """The evaluate module of a name in METRICS. Raises InputError for another name."""
    if name not in METRICS:
        raise InputError(f"unknown metric '{name}'; there are: {', '.join(METRICS)}")
    return METRICS[name]()


def compute(names: str | Iterable[str], predictions: Values, references: Values) -> dict[str, float]:
    """{name: value} of one metric or several; predictions and references (n,) are class indices, or floats.

    Raises InputError for an unknown name, and evaluate's ValueError where the lengths differ.
    """
    scores: dict[str, float] = {}
    for name in [names] if isinstance(names, str) else names:
        scores |= load(name).compute(predictions=predictions, references=references)
    return scores
