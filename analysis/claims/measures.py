"""From tables of runs to cases: which runs are compared, and the estimates with their intervals."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from analysis.claims.engine import Case, Frames, Judge
from analysis.kit import tables
from analysis.maths import statistics

SETTING = ["model", "task", "label", "settings"]


class Pair(NamedTuple):
    """Two sets of runs to be compared seed by seed; name: what tells this pair from others of the same task."""

    ours: pd.DataFrame
    theirs: pd.DataFrame
    name: str = ""


Choose = Callable[[pd.DataFrame], Iterable[Pair]]


def runs_of(*studies: str) -> tuple[str, ...]:
    """The names of the tables of runs of some studies."""
    return tuple(f"{study}/runs.csv" for study in studies)


def per_run(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a run of the study itself, not of its tuning, with value, its test score, and validation: what choices are
    made by.

    The score is that of the task's main metric, which runs list first after the loss. validation is the same metric,
    or, where text is written and only the loss is known, minus the loss: more is better. tuned: its study has tried
    several learning rates for its method and settings.
    """
    final = tables.in_role(runs, "study")
    scored = final[final["metric"] != "loss"]
    test = scored[scored["split"] == "test"]
    test = test[test["metric"] == test.groupby(["model", "task"])["metric"].transform("first")]
    seen = final[final["split"] == "validation"]
    scores = seen.merge(test[["run_id", "metric"]], on=["run_id", "metric"]).set_index("run_id")["value"]
    losses = -seen[seen["metric"] == "loss"].set_index("run_id")["value"]
    tuned = pd.MultiIndex.from_frame(tables.in_role(runs, "tuning")[SETTING])
    return test.assign(
        validation=test["run_id"].map(scores).fillna(test["run_id"].map(losses)),
        tuned=pd.MultiIndex.from_frame(test[SETTING]).isin(tuned),
    )


def by_task(frames: Frames) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(study, where, rows of `per_run`) for every study that has a table of runs, and every model and task in it."""
    for name, runs in frames.items():
        study, _, file = name.partition("/")
        if file == "runs.csv":
            for key, rows in per_run(runs).groupby(["model", "task"], sort=False):
                yield study, " ".join(map(str, key)), rows


def compared(choose: Choose) -> Judge:
    """A judge: in every study, model and task the differences that `choose` picks, paired by seed.

    A study whose runs are all in a case before adds none: a run speaks once.
    """

    def judge(frames: Frames) -> list[Case]:
        cases: list[Case] = []
        for study, where, rows in by_task(frames):
            for ours, theirs, name in choose(rows):
                runs = ids(ours, theirs)
                if ours.empty or theirs.empty or any(set(runs) <= set(case.runs) for case in cases):
                    continue
                place = f"{where} {name}".strip()
                cases += difference(study, place, by_seed(ours), by_seed(theirs), runs)
        return cases

    return judge


def ids(*parts: pd.DataFrame) -> tuple[str, ...]:
    """The run ids of some tables of runs, each once."""
    return tuple(dict.fromkeys(run_id for part in parts for run_id in part["run_id"]))


def by_seed(rows: pd.DataFrame) -> pd.Series:
    """The score of each seed: the mean, where rows are of several budgets."""
    return rows.groupby("seed")["value"].mean()


def best(rows: pd.DataFrame, by: str = "settings") -> pd.DataFrame:
    """The rows of that value of column `by` that has the best mean on validation data; none of none."""
    means = rows.groupby(by, sort=False)["validation"].mean()
    return rows if means.isna().all() else rows[rows[by] == means.idxmax()]


def method(rows: pd.DataFrame, label: str) -> pd.DataFrame:
    """The runs of a method, at the settings that are best on validation data."""
    return best(rows[rows["label"] == label])


def lora(rows: pd.DataFrame, weight_types: str) -> pd.DataFrame:
    """The runs of plain LoRA on a set of weight types."""
    return rows[(rows["label"] == "lora") & (rows["weight_types"] == weight_types)]


def difference(
    study: str, where: str, ours: pd.Series, theirs: pd.Series, runs: tuple[str, ...], unit: str = "seeds"
) -> list[Case]:
    """The case of ours minus theirs, both by seed (or by `unit`); none if they share no seed."""
    found = statistics.paired(ours, theirs)
    if not found.pairs:
        return []
    low, high = found.difference - found.interval, found.difference + found.interval
    return [Case(study, where, found.difference, low, high, found.pairs, unit, runs)]


def mean(study: str, where: str, values: Sequence[float] | pd.Series, unit: str, runs: tuple[str, ...] = ()) -> Case:
    """The case of a mean with its Student-t interval."""
    row = tables.summarise(pd.DataFrame({"key": 0, "value": values}), ["key"]).iloc[0]
    low, high = row["mean"] - row["interval"], row["mean"] + row["interval"]
    return Case(study, where, row["mean"], low, high, int(row["n"]), unit, runs)


def ratio(study: str, where: str, logs: Sequence[float] | pd.Series, unit: str, runs: tuple[str, ...] = ()) -> Case:
    """The case of a geometric mean, from the logarithms of ratios: a half is as far from 1 as a double."""
    case = mean(study, where, logs, unit, runs)
    return case._replace(value=np.exp(case.value), low=np.exp(case.low), high=np.exp(case.high))


def slope(study: str, where: str, x: pd.Series, y: pd.Series, groups: pd.Series, unit: str) -> Case:
    """The case of the slope of y over x by least squares, one for all groups, each of which has a level of its own."""
    x, y = (values - values.groupby(groups).transform("mean") for values in (x, y))
    value = (x * y).sum() / (x**2).sum()
    freedom = len(x) - groups.nunique() - 1
    half = np.nan
    if freedom > 0:
        half = stdtrit(freedom, 0.975) * np.sqrt(((y - value * x) ** 2).sum() / freedom / (x**2).sum())
    return Case(study, where, value, value - half, value + half, len(x), unit)


def places(table: pd.DataFrame | None, *also: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(where, rows) for every task of a table, by model where it names models, and by the columns `also`; of no table
    there are none. Numbers are told by their column: `r = 8`."""
    if table is None:
        return
    by = [*(["model"] if "model" in table else []), "task", *also]
    for key, rows in table.groupby(by, sort=False):
        names = zip(by, key, strict=True)
        yield " ".join(value if isinstance(value, str) else f"{name} = {value:g}" for name, value in names), rows


def own_runs(frames: Frames, study: str, rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each of the study's own runs on the model, task, rank and label of `rows`, as far as these say; none
    where its table of runs is not there."""
    name = f"{study}/runs.csv"
    if name not in frames:
        return pd.DataFrame({"run_id": []})
    runs = tables.in_role(frames[name], "study").drop_duplicates("run_id")
    keys = [key for key in ("model", "task", "r", "label") if key in rows]
    return runs.merge(rows[keys].drop_duplicates(), on=keys)
