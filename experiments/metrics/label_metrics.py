"""Metrics as local `evaluate` modules over scikit-learn and scipy: nothing is fetched, nothing is written to disk.

`compute("f1", predictions, references)` is the short way; `load("f1")` gives the evaluate.Metric, which also takes
batches (add_batch) and combines with others (evaluate.combine).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import evaluate
import numpy as np
import numpy.typing as npt
from datasets import Features, Value
from scipy import stats
from sklearn import metrics

from lora.config import InputError

_SKLEARN = """@article{scikit-learn, title={Scikit-learn: Machine Learning in Python},
author={Pedregosa, F. and others}, journal={Journal of Machine Learning Research}, volume={12}, pages={2825--2830},
year={2011}}"""
_SCIPY = """@article{scipy, title={SciPy 1.0: Fundamental Algorithms for Scientific Computing in Python},
author={Virtanen, P. and others}, journal={Nature Methods}, volume={17}, pages={261--272}, year={2020}}"""

Array = npt.NDArray[Any]
Values = Sequence[float] | Array


class Measure(NamedTuple):
    """What a metric is, its value for references and predictions (n,), the type of these, and whose it is."""

    what: str
    value: Callable[[Array, Array], float]
    dtype: str = "int64"
    citation: str = _SKLEARN


def _correlation(kind: Callable[..., Any], references: Array, predictions: Array) -> float:
    # A correlation with a constant is undefined (nan in scipy); a model that has learnt nothing scores 0, as in GLUE's
    # Matthews correlation, and a run's table stays numeric.
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return 0.0
    return float(kind(predictions, references).statistic)


METRICS = {
    "accuracy": Measure("The share of predictions that equal the reference, in [0, 1].", metrics.accuracy_score),
    "f1": Measure(
        "F1 of class 1, in [0, 1]: the harmonic mean of its precision and recall (GLUE: MRPC, QQP). Two classes only.",
        partial(metrics.f1_score, average="binary", zero_division=0),
    ),
    "macro_f1": Measure(
        "The unweighted mean over classes of the F1 of each, in [0, 1]: for classes of unequal sizes.",
        partial(metrics.f1_score, average="macro", zero_division=0),
    ),
    "matthews_correlation": Measure(
        "Matthews' correlation coefficient, in [-1, 1] (GLUE: CoLA); 0 where only one class is predicted.",
        metrics.matthews_corrcoef,
    ),
    "pearson": Measure(
        "Pearson's linear correlation, in [-1, 1] (GLUE: STS-B); 0 where one side is constant.",
        partial(_correlation, stats.pearsonr), "float64", _SCIPY,
    ),
    "spearman": Measure(
        "Spearman's rank correlation, in [-1, 1] (GLUE: STS-B); 0 where one side is constant.",
        partial(_correlation, stats.spearmanr), "float64", _SCIPY,
    ),
}  # fmt: skip


class LocalMetric(evaluate.Metric):
    """The evaluate.Metric of a name in METRICS, which keeps its data in memory."""

    name = ""  # the base class takes it from that of the class

    def __init__(self, name: str, **kwargs: Any) -> None:
        self.name, self.measure = name, METRICS[name]
        super().__init__(keep_in_memory=True, **kwargs)

    def _build_data_dir(self) -> str:
        # The base class makes a folder in the user's cache here. In memory there is no use for one.
        return ""

    def _info(self) -> evaluate.MetricInfo:
        value = Value(self.measure.dtype)
        return evaluate.MetricInfo(
            description=self.measure.what,
            citation=self.measure.citation,
            inputs_description=f"predictions and references: {self.measure.dtype}, one each an example.",
            features=Features({"predictions": value, "references": value}),
        )

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, float]:
        # Lists, not the info's format="numpy": that rounds to float32, which makes ties that the data do not have.
        return {self.name: float(self.measure.value(np.asarray(references), np.asarray(predictions)))}


def load(name: str) -> LocalMetric:
    """The evaluate module of a name in METRICS. Raises InputError for another name."""
    if name not in METRICS:
        raise InputError(f"unknown metric '{name}'; there are: {', '.join(METRICS)}")
    return LocalMetric(name)


def compute(names: str | Iterable[str], predictions: Values, references: Values) -> dict[str, float]:
    """{name: value} of one metric or several; predictions and references (n,) are class indices, or floats.

    Raises InputError for an unknown name, and evaluate's ValueError where the lengths differ.
    """
    scores: dict[str, float] = {}
    for name in [names] if isinstance(names, str) else names:
        scores |= load(name).compute(predictions=predictions, references=references)
    return scores
