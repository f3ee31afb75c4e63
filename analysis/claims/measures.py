"""From tables of runs to cases: which runs are compared, and the estimates with their errors."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Frames, Judge
from analysis.kit import collapses, tables
from analysis.maths import estimates, statistics
from analysis.maths.estimates import NOT_POOLED, Residual

SETTING = ["model", "task", "label", "settings"]
VARIES = ["label", "settings", "train_examples", "shots", "budget", "quantization", "r", "alpha", "lr"]


def runs_of(*studies: str) -> tuple[str, ...]:
    """The names of the tables of runs of some studies."""
    return tuple(f"{study}/runs.csv" for study in studies)


def per_run(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a run of the study itself, not of its tuning, with value, its test score, and validation: what choices are
    made by.

    The score is that of the task's main metric, which runs list first after the loss; loss is the test loss. validation
    is the same metric, or, where text is written and only the loss is known, minus the loss: more is better. tuned: its
    study has tried several learning rates for its method and settings.
    """
    final = tables.in_role(runs, "study")
    scored = final[final["metric"] != "loss"]
    test = scored[scored["split"] == "test"]
    test = test[test["metric"] == test.groupby(["model", "task"])["metric"].transform("first")]
    seen = final[final["split"] == "validation"]
    scores = seen.merge(test[["run_id", "metric"]], on=["run_id", "metric"]).set_index("run_id")["value"]
    losses = -seen[seen["metric"] == "loss"].set_index("run_id")["value"]
    of_test = final[(final["split"] == "test") & (final["metric"] == "loss")].set_index("run_id")["value"]
    tuned = pd.MultiIndex.from_frame(tables.in_role(runs, "tuning")[SETTING])
    return test.assign(
        validation=test["run_id"].map(scores).fillna(test["run_id"].map(losses)),
        loss=test["run_id"].map(of_test),
        validation_loss=-test["run_id"].map(losses),
        scored=test["run_id"].isin(scores.index),
        tuned=pd.MultiIndex.from_frame(test[SETTING]).isin(tuned),
    )


def is_written(rows: pd.DataFrame) -> bool:
    """Whether a language model answers in text: no score is computed while it trains, or a classifier's task is asked
    as text, which is then its name (`text_…`)."""
    return not rows["scored"].any() or str(rows["task"].iloc[0]).startswith("text_")


class Block(NamedTuple):
    """The runs of one model and task in a study: where that is, rows of `per_run`, and which of them have collapsed, so
    that they predict about one class."""

    study: str
    where: str
    task: str
    rows: pd.DataFrame
    lost: pd.Series
    column: str = "items"  # of what a run did on each test item: right or wrong, or its losses

    def others(self, *compared: pd.DataFrame) -> Residual:
        """The spread of one run, pooled over the settings of the study that are not compared."""
        rows = self.rows[~self.lost]
        by = [name for name in VARIES if name in rows]
        codes = rows.groupby(by, dropna=False, sort=False).ngroup()
        apart = {int(code) for part in compared for code in codes.reindex(part.index).dropna()}
        return estimates.residual(rows["value"].to_numpy(), codes.to_numpy(), rows["seed"].to_numpy(), apart)


class _Table:
    """A table of runs as the key of a cache: the same object is the same table."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self.runs = runs

    def __hash__(self) -> int:
        return id(self.runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Table) and other.runs is self.runs


@functools.lru_cache(maxsize=32)
def _tasks(table: _Table) -> list[tuple[str, pd.DataFrame]]:
    groups = per_run(table.runs).groupby(["model", "task"], sort=False)
    return [(" ".join(map(str, key)), rows) for key, rows in groups]


@functools.lru_cache(maxsize=64)
def _blocks(table: _Table, study: str, written: bool) -> list[Block]:
    found = []
    for where, rows in _tasks(table):
        if is_written(rows) == written:
            gains = {"value": -rows["loss"], "validation": -rows["validation_loss"]} if written else {}
            own = rows.assign(**gains)
            column = "losses" if written else "items"
            found.append(Block(study, where, str(own["task"].iloc[0]), own, collapses.lost(own), column))
    return found


def _tables(frames: Frames) -> Iterator[tuple[str, _Table]]:
    for name, runs in frames.items():
        study, _, file = name.partition("/")
        if file == "runs.csv":
            yield study, _Table(runs)


def by_task(frames: Frames) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(study, where, rows of `per_run`) for every study that has a table of runs, and every model and task in it."""
    for study, table in _tables(frames):
        for where, rows in _tasks(table):
            yield study, where, rows


def blocks(frames: Frames, written: bool) -> Iterator[Block]:
    """The blocks of classifiers, or of language models (written): their value is minus the test loss, nats a token, so
    that more is better, and choices are made by the validation loss."""
    for study, table in _tables(frames):
        yield from _blocks(table, study, written)


def ids(*parts: pd.DataFrame) -> tuple[str, ...]:
    """The run ids of some tables of runs, each once."""
    return tuple(dict.fromkeys(run_id for part in parts for run_id in part["run_id"]))


def by_seed(rows: pd.DataFrame) -> pd.Series:
    """The score of each seed: the mean, where rows are of several budgets."""
    return rows.groupby("seed")["value"].mean()


def best(rows: pd.DataFrame, by: str = "settings") -> pd.DataFrame:
    """The rows of that value of column `by` that has the best mean on validation data, over the seeds that all have;
    none of none."""
    means = statistics.evenly(rows, by, "validation")
    return rows if means.empty else rows[rows[by] == means.idxmax()]


def method(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The runs of a method, at the settings that are best on validation data."""
    return best(rows[rows["label"] == label])


def lora(rows: pd.DataFrame, weight_types: str) -> pd.DataFrame:
    """The runs of plain LoRA on a set of weight types."""
    return rows[(rows["label"] == "lora") & (rows["weight_types"] == weight_types)]


def replicates(
    study: str, where: str, task: str, values: Sequence[float] | pd.Series, unit: str = "seeds",
    runs: tuple[str, ...] = (), pooled: Residual = NOT_POOLED, each: float = 1,
) -> list[Case]:  # fmt: skip
    """The case of the mean of replicates (seeds, pairs of runs, rounds), of which NaN does not count; none of none."""
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        return []
    return [Case(study, where, task, estimates.mean(known.to_numpy(), pooled, each), unit, runs)]


def exact(study: str, where: str, task: str, value: float, unit: str = "", runs: tuple[str, ...] = ()) -> Case:
    """The case of a number that has no spread."""
    return Case(study, where, task, estimates.Estimate(value, 0.0, np.inf, 1), unit, runs, exact=True)


def places(table: pd.DataFrame | None, *also: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(where, task, rows) for every task of a table, by model where it names models, and by the columns `also`; of no
    table there are none. Numbers are told by their column: `r = 8`."""
    if table is None:
        return
    by = [*(["model"] if "model" in table else []), "task", *also]
    for key, rows in table.groupby(by, sort=False):
        names = zip(by, key, strict=True)
        where = " ".join(value if isinstance(value, str) else f"{name} = {value:g}" for name, value in names)
        yield where, str(rows["task"].iloc[0]), rows


class Measured(NamedTuple):
    """What was measured on the runs of a model and a task: a value a seed, of which runs, and what else tells it."""

    values: pd.Series
    runs: tuple[str, ...]
    name: str = ""


def on_each(file: str, measure: Callable[[pd.DataFrame], Measured | None]) -> Judge:
    """A judge: the case of what `measure` gives for the rows of every model and task in a file of measurements; None:
    these rows say nothing."""
    study = file.partition("/")[0]

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for where, task, rows in places(frames.get(file)):
            if found := measure(rows):
                cases += replicates(study, f"{where} {found.name}".strip(), task, found.values, runs=found.runs)
        return cases

    return judge


def own_runs(frames: Frames, study: str, rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each of the study's own runs on the model, task, rank and label of `rows`, as far as these say; none
    where its table of runs is not there."""
    name = f"{study}/runs.csv"
    if name not in frames:
        return pd.DataFrame({"run_id": []})
    runs = tables.in_role(frames[name], "study").drop_duplicates("run_id")
    keys = [key for key in ("model", "task", "r", "label") if key in rows]
    return runs.merge(rows[keys].drop_duplicates(), on=keys)
