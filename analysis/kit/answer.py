"""What the runs of a study answer, in a sentence: which options are as good as the best, worse, or not told apart.

The best option is the one with the best mean on validation data; test scores are compared with its, paired by seed;
where text is written, losses. An option is worse if the paired t-test says so, by Holm's method corrected for all
options; it is as good if the whole 95% interval of its difference is above minus a point, or 0.02 nats a token; else it
is open. As for a claim, fewer than ENOUGH seeds decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.engine import ENOUGH
from analysis.claims.measures import best, by_seed, is_written, per_run
from analysis.claims.pairs import NAT, POINT
from analysis.kit import collapses, naming
from analysis.maths import statistics
from experiments import sample_size

SEEDS = (5, 10, 20)  # how many are asked for next
NAMES = {"full": "full fine-tuning", "lora": "LoRA", "head_only": "the head alone"}
Name = Callable[[pd.Series], str]  # of an option, from one of its runs


class Unit(NamedTuple):
    """What differences are said in: its name, a factor and decimals; and what of it matters little, in words."""

    name: str
    scale: float
    digits: int
    little: float
    words: str


POINTS = Unit("points", 100, 1, POINT, "a point")
NATS = Unit("nats of loss", -1, 3, NAT, f"{NAT} nats")  # values are minus the loss


class Option(NamedTuple):
    """An option that was compared with the best: its name, how it stands, and its difference, more is better."""

    name: str
    standing: str  # best, worse, better, as good, open
    difference: statistics.Paired = statistics.NOTHING
    unit: Unit = POINTS

    @property
    def by(self) -> str:
        """The difference in its unit with its interval."""
        pair, (name, scale, digits, *_) = self.difference, self.unit
        interval = "" if np.isnan(pair.interval) else f" ± {abs(scale) * pair.interval:.{digits}f}"
        return f"{scale * pair.difference:+.{digits}f}{interval} {name}"


class Comparison(NamedTuple):
    """The options of one question, small before large, and what they were compared on: seeds that pairs share, and rows
    of the test split, if that is known."""

    options: list[Option]
    seeds: int
    rows: int | None
    unit: Unit = POINTS

    def names(self, *standings: str) -> list[str]:
        """The options of some standings."""
        return [option.name for option in self.options if option.standing in standings]

    @property
    def best(self) -> str:
        """The option that the others were compared with."""
        return self.names("best")[0]

    @property
    def counted(self) -> str:
        """What it was compared on, in brackets."""
        seeds = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
        return f"({seeds})" if self.rows is None else f"(n = {self.rows:,} test rows, {seeds})"

    @property
    def advice(self) -> str:
        """What would decide what is open."""
        more = next((seeds for seeds in SEEDS if seeds > self.seeds), None)
        if more is None:
            return "compare on more test rows, more seeds will hardly tell"
        return f"add ARGS='seed={','.join(map(str, range(more)))}'"


def compare(rows: pd.DataFrame, by: Sequence[str], name: Name) -> Comparison:
    """How the options, which are the groups of `by` in the order of their rows, stand; rows: a row a run, of
    `analysis.claims.measures.per_run`, of one model, task and question."""
    unit = POINTS
    if is_written(rows):
        unit, rows = NATS, rows.assign(value=-rows["loss"], validation=-rows["validation_loss"])
    keyed = rows.assign(option=rows.groupby(list(by), sort=False).ngroup())
    groups = dict(list(keyed.groupby("option")))
    first = int(best(keyed, "option")["option"].iloc[0])
    # Who chooses sees which runs have collapsed, but they say nothing of how good the others are.
    scores = {key: by_seed(group[~collapses.lost(group)]) for key, group in groups.items()}
    pairs = {key: statistics.paired(own, scores[first]) for key, own in scores.items() if key != first}
    p = dict(zip(pairs, statistics.holm([pair.p for pair in pairs.values()]), strict=True))
    options = [
        Option(name(group.iloc[0]), _standing(pairs[key], p[key], unit), pairs[key], unit)
        if key in pairs
        else Option(name(group.iloc[0]), "best")
        for key, group in groups.items()
    ]
    seeds = max((pair.pairs for pair in pairs.values()), default=0) or 1
    counts = rows["test_rows"].dropna().unique()
    return Comparison(options, seeds, int(counts[0]) if len(counts) == 1 else None, unit)


def _standing(pair: statistics.Paired, p: float, unit: Unit) -> str:
    if pair.pairs < ENOUGH:
        return "open"
    if p < 0.05:
        return "worse" if pair.difference < 0 else "better"
    # Differences that are all the same have no spread, and so an interval of no width.
    half = 0.0 if np.isnan(pair.interval) else pair.interval
    return "as good" if pair.difference - half > -unit.little else "open"


def smallest(found: Comparison, noun: str, least: str) -> str:
    """The sentence on options that are ordered by what they cost; least: what the first of them that suffices is
    called, `smallest rank`."""
    if found.seeds == 1:
        return _one_seed(found, noun)
    standing = {option.name: option for option in found.options}
    first = found.names("best", "as good", "better", "open")[0]
    worse = [option for option in found.options[: list(standing).index(first)] if option.standing == "worse"]
    below = f"; {_worse(worse)}" if worse else ""
    if standing[first].standing == "open":
        enough = found.names("best", "as good", "better")[0]
        text = (
            f"the {least} that is not told apart from the best ({found.best} on validation data) is {first}; undecided "
            f"between {first} and {enough} {found.counted}: {found.advice}"
        )
    elif first == found.best:
        text = f"the {least} that is enough is {first}, the best on validation data {found.counted}"
    else:
        text = (
            f"the {least} that is enough is {first}, at most {found.unit.words} below the best ({found.best} on "
            f"validation data; {standing[first].by}) {found.counted}"
        )
    return f"{text}{below}.{_higher(found)}"


def among(found: Comparison, noun: str) -> str:
    """The sentence on options that cost the same: which is the best, and which are not told apart from it."""
    if found.seeds == 1:
        return _one_seed(found, noun)
    said = [
        f"{words}: {', '.join(found.names(standing))}"
        for words, standing in (
            ("worse on test data", "worse"),
            (f"at most {found.unit.words} below it", "as good"),
            ("undecided", "open"),
        )
        if found.names(standing)
    ]
    text = "; ".join([f"the best {noun} on validation data is {found.best} {found.counted}", *said])
    advice = f": {found.advice}" if found.names("open") else ""
    return f"{text}{advice}.{_higher(found)}"


def _one_seed(found: Comparison, noun: str) -> str:
    best = f"the best on validation data, maybe by chance, is {found.best}"
    return f"nothing is decided, one seed tells no {noun} from another {found.counted}; {best}: {found.advice}."


def _higher(found: Comparison) -> str:
    better = [f"{option.name} ({option.by})" for option in found.options if option.standing == "better"]
    return f" On test data, {' and '.join(better)} did better than it." if better else ""


def _worse(options: Sequence[Option]) -> str:
    """The options that are worse, and by how much the last of them is."""
    names = [option.name for option in options]
    if len(names) == 1:
        return f"{names[0]} is worse ({options[0].by})"
    return f"{', '.join(names[:-1])} and {names[-1]} are worse ({names[-1]} by {options[-1].by})"


def ranks(runs: pd.DataFrame) -> list[str]:
    """For every model, task and set of weight types: the smallest rank that is enough. runs: of `tables.load_runs`, as
    for the others below."""

    def sentence(rows: pd.DataFrame) -> str:
        found = compare(rows.sort_values("r", kind="stable"), ["r"], lambda run: f"r = {run['r']}")
        return smallest(found, "rank", "smallest rank")

    return _answers(runs, "r", ["weight_types"], sentence, "LoRA on {}".format)


def weight_types(runs: pd.DataFrame, order: Callable[[str], Any]) -> list[str]:
    """For every model, task and budget: the set of weight types to spend it on; order: the sort key of a set. runs has
    `budget`, of `studies.weight_types.sets.with_budgets`."""

    def sentence(rows: pd.DataFrame) -> str:
        ordered = rows.sort_values("weight_types", key=lambda names: names.map(order), kind="stable")
        return among(compare(ordered, ["weight_types"], lambda run: str(run["weight_types"])), "set of weights")

    return _answers(runs, "weight_types", ["budget"], sentence, "LoRA with {:,} parameters".format)


def methods(runs: pd.DataFrame) -> list[str]:
    """For every model and task: the method with the fewest trained parameters that is as good as the best."""

    def sentence(rows: pd.DataFrame) -> str:
        found = compare(rows.sort_values("trainable_params", kind="stable"), ["label", "settings"], _method)
        return smallest(found, "method", "method with the fewest trained parameters")

    return _answers(runs, "trainable_params", [], sentence)


def _method(run: pd.Series) -> str:
    return naming.title(NAMES.get(run["label"], run["label"]), run["settings"])


def _answers(
    runs: pd.DataFrame,
    option: str,
    also: Sequence[str],
    sentence: Callable[[pd.DataFrame], str],
    about: Callable[..., str] = str,
) -> list[str]:
    """A sentence for each model, task and value of `also` with several options, and one for each task whose test split
    is small."""
    found, small = [], []
    runs = runs[runs["main"] | (runs["metric"] == "loss")]
    for (model, task, *key), rows in per_run(runs).groupby(["model", "task", *also], sort=False):
        if rows[option].nunique() > 1:
            place = ", ".join([f"{task} ({model})", *map(about, key)])
            found.append(f"{place}: {sentence(rows)}")
            counts = () if is_written(rows) else rows["test_rows"].dropna().unique()
            small += [_small(str(task), int(count)) for count in counts]
    return [*found, *filter(None, dict.fromkeys(small))]


def _small(task: str, rows: int) -> str:
    if sample_size.warning(rows) is None:
        return ""
    error = 100 * sample_size.standard_error(rows)
    return (
        f"{task}: on other test rows than these {rows} scores would differ, by a standard error of up to {error:.1f} "
        "points, which more seeds do not lessen."
    )
