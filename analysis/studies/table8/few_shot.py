"""How many training examples are worth the best prompt: demonstrations in a frozen model's context, or training."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp, ttest_ind

from analysis.kit import naming, tables
from analysis.kit.compare import METHOD
from analysis.kit.method_tables import TASK
from analysis.maths import statistics

KEYS = [*TASK, *METHOD, "shots", "train_examples"]


class Unpaired(NamedTuple):
    """Difference of two means, half-width of its 95% interval, and p, by Welch's t-test: draws of demonstrations and
    seeds of training have nothing in common by which they could be paired. NaN where there is no spread to judge by."""

    difference: float
    difference_interval: float
    p: float


NOTHING = Unpaired(np.nan, np.nan, np.nan)


def unpaired(values: pd.Series, others: pd.Series, exact: bool = False) -> Unpaired:
    """Mean of `values` minus mean of `others`. exact: others are one number that no draw changes, so that one of them
    is all there is to know."""
    ours, theirs = values.to_numpy(dtype=float), others.to_numpy(dtype=float)
    difference = float(ours.mean() - theirs.mean())
    still = np.ptp(ours) < statistics.NO_SPREAD
    if len(ours) < 2 or (still and (exact or np.ptp(theirs) < statistics.NO_SPREAD)) or (len(theirs) < 2 and not exact):
        return Unpaired(difference, np.nan, np.nan)
    test = ttest_1samp(ours, theirs.mean()) if exact else ttest_ind(ours, theirs, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Unpaired(difference, float(high - low) / 2, float(test.pvalue))


def ordered(test: pd.DataFrame) -> pd.DataFrame:
    """Runs by model and task: prompts by their number of demonstrations, then trained methods by their examples."""
    places = {key: place for place, key in enumerate(naming.methods(test))}
    place = pd.Series([places[key] for key in naming.keys(test)], test.index)
    by = ["model", "task", "trained", "place", "shots", "train_examples", "seed"]
    keyed = test.assign(trained=test["label"] != "frozen", place=place)
    return keyed.sort_values(by, kind="stable", ignore_index=True).drop(columns=["trained", "place"])


def tabulate(test: pd.DataFrame) -> pd.DataFrame:
    """A row for each of KEYS: mean, interval and n of `kit.tables.summarise`, low and high, exact, best, and for
    trained methods <field> of Unpaired to the task's best prompt, with p_holm.

    A prompt is a row of the method `frozen`; best marks the one with the highest mean of its task. exact: the prompt
    has no demonstrations, so nothing is drawn, and its runs have one score: it has no interval. test has the columns
    KEYS, epochs, prompt_words and those of a frame of runs. Holm's correction is for the trained rows of a task.
    """
    groups = test.groupby(KEYS, sort=False)
    about = groups.agg(
        low=("value", "min"), high=("value", "max"), trainable_params=("trainable_params", "max"), lr=("lr", "first"),
        epochs=("epochs", "max"), prompt_words=("prompt_words", "mean"), train_seconds=("train_seconds", "mean"),
    )  # fmt: skip
    table = tables.summarise(test, KEYS).merge(about, on=KEYS)
    drawn = (table["label"] != "frozen") | (table["shots"] > 0)
    table["exact"] = ~drawn & (table["high"] - table["low"] < statistics.NO_SPREAD)
    table["interval"] = table["interval"].where(~table["exact"])
    parts = [_with_differences(cells, test) for _, cells in table.groupby(TASK, sort=False)]
    return pd.concat(parts, ignore_index=True)


def _with_differences(cells: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    prompts = cells[cells["label"] == "frozen"].sort_values("mean", ascending=False, kind="stable")
    values = {key: runs["value"] for key, runs in test.groupby(KEYS, sort=False)}
    found = [NOTHING] * len(cells)
    if not prompts.empty:
        best = values[tuple(prompts[KEYS].iloc[0])]
        exact = bool(prompts["exact"].iloc[0])
        keys = list(cells[KEYS].itertuples(index=False, name=None))
        trained = cells["label"] != "frozen"
        found = [
            unpaired(values[key], best, exact) if is_trained else NOTHING
            for key, is_trained in zip(keys, trained, strict=True)
        ]
    table = cells.assign(best=cells.index.isin(prompts.index[:1]))
    table[list(Unpaired._fields)] = np.array(found)
    return table.assign(p_holm=statistics.holm(table["p"]))


class Passing(NamedTuple):
    """How many training examples a method needs to pass the best prompt: the smallest number, None if it is not reached
    with the numbers that were run, and the larger numbers that do not pass."""

    smallest: int | None
    not_at: list[int]


def above(cells: pd.DataFrame) -> Passing:
    """Where the mean is above the best prompt's, of the rows of one trained method, of `tabulate`."""
    return _passing(cells["train_examples"], cells["difference"] > 0)


def told_apart(cells: pd.DataFrame) -> Passing:
    """Where that difference is established too: p, corrected for all trained rows of the task, is below 0.05."""
    return _passing(cells["train_examples"], (cells["difference"] > 0) & (cells["p_holm"] < 0.05))


def _passing(sizes: pd.Series, passed: pd.Series) -> Passing:
    first = sizes[passed].min() if passed.any() else None
    return Passing(first, [] if first is None else sorted(sizes[~passed & (sizes > first)]))
