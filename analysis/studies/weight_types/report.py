"""table.md of the study of weight types: what was found, the paper's Table 5 beside ours, tests and learning rates."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from analysis.kit import metrics, pages, tables, tuning
from analysis.kit.cells import mean_texts
from analysis.kit.data import Data
from analysis.kit.sentences import caution, listed, told
from analysis.maths import statistics
from analysis.studies.weight_types.sets import MEAN_OF_SINGLE, PLACE, REFERENCE, SEVERAL, compared, order, sets_of

READING = """\
A budget is a number of parameters of LoRA, without a task's head; every set of weight types gets the rank that it
buys. Ours are test scores in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives
no interval. Where text is written, sets are compared by the test loss, nats a token, which scatters least between
seeds; the score stands beside it. The paper's columns are the validation accuracy of its Table 5: {paper}, {budget:,}
parameters, attention only, single numbers on other tasks: compare how sets differ, not levels. There, {best}."""
TESTS = f"""\
Below, differences are in points, or nats of loss, paired by seed, ± half-width of their own 95% interval; p is of the
paired t-test, by Holm's method corrected for the sets that are compared with {REFERENCE} at that budget; `*` marks
p < 0.05."""
RATES = """\
Learning rates were chosen on validation data, for each set at one budget and with one seed, and are used for all its
budgets and seeds. All sets start with as many rates, and more are tried where the best lies at the edge. Bold: chosen;
×: did not train."""


def page(ours: Callable[[Data], pd.DataFrame], paper: pd.DataFrame) -> list[pages.Block]:
    """The blocks of table.md between its heading and the failed runs; ours: gives the rows of `sets.tabulate`, and
    paper is the same of the paper."""
    about = {"paper": paper["model"].iloc[0], "budget": paper["budget"].iloc[0], "best": paper_best(paper)}

    def found(data: Data) -> list[str]:
        rows, differences = compared(data.once(ours)), data["differences.csv"]
        tests = differences[differences["reference"] == REFERENCE]
        cautions = [f"- {model}: {_caution(own)}" for model, own in tests.groupby("model", sort=False)]
        return [*verdicts(rows, differences), *cautions]

    return [
        textwrap.fill(READING.format(**about), 119),
        pages.under("## What was found", found),
        lambda data: [TESTS] if data.rates.empty else [TESTS, RATES],
        pages.sections(
            "## {task} ({model})",
            lambda data: _findings(compared(data.once(ours)), data),
            lambda data: f"Test {' and '.join(data.once(ours)['metric'].unique())}:",
            pages.table(lambda data: quality(data.once(ours), paper)),
            pages.under("What a budget buys:", pages.table(lambda data: bought(compared(data.once(ours))))),
            pages.under(f"Minus {REFERENCE}:", pages.table(lambda data: _minus(_against_reference(data)))),
            pages.under("Learning rates:", pages.table(_rates)),
            by=["model", "task"],
            where={"source": "ours"},
        ),
    ]


def _findings(cells: pd.DataFrame, data: Data) -> list[str]:
    budgets = cells.groupby("budget", sort=False)
    differences = data["differences.csv"]
    lines = [finding(part, differences[differences["budget"] == budget]) for budget, part in budgets]
    lines.append(f"- {scale(cells)}")
    own = data.scores[data.scores["head_lr"].notna()]
    return lines if own.empty else [*lines, f"- {tables.head_rate(own)}"]


def _against_reference(data: Data) -> pd.DataFrame:
    rows = data["differences.csv"]
    return rows[rows["reference"] == REFERENCE]


def _rates(data: Data) -> pd.DataFrame:
    rates = data.frame("learning_rates.csv")
    return pd.DataFrame() if rates is None or rates.empty else learning_rates(rates)


def _caution(tests: pd.DataFrame) -> str:
    return caution(tests["pairs"], int(tests.groupby(["task", "budget"]).size().max()))


def paper_best(paper: pd.DataFrame) -> str:
    """Which sets have the highest number of the paper, in each of its tasks."""
    parts = []
    for task, cells in paper.groupby("task", sort=False):
        best = cells.loc[cells["mean"] == cells["mean"].max(), "weight_types"]
        parts.append(f"{' and '.join(best)} {'is' if len(best) == 1 else 'are'} highest on {task}")
    return ", ".join(parts)


def verdicts(table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What all budgets, tasks and models come to, as markdown list items. Tests are corrected for all of their kind."""
    gains = table["mean"].where(~metrics.lower_is_better(table), -table["mean"])
    groups = table.assign(gain=gains).set_index("weight_types").groupby([*PLACE, "budget"], sort=False)["gain"]
    found = [means for _, means in groups if REFERENCE in means and len(means) > 1]
    if not found:
        return [f"- {REFERENCE} has no run beside another set: nothing is compared."]
    first = sum(means[REFERENCE] == means.max() for means in found)
    lines = [f"- {REFERENCE} has the best mean in {first} of {len(found)} comparisons (a model, a task, a budget)."]
    tests = corrected(differences, REFERENCE)
    better, worse, _ = told(tests, lower=metrics.lower_is_better(tests))
    if tests.empty:
        lines.append(f"- Whether {REFERENCE} is the best choice is not tested: that takes two seeds that differ.")
    else:
        lines.append(
            f"- Corrected for all {len(tests)} tests of another set against {REFERENCE}, {len(better)} find the other "
            f"better{_listed(better)}, {len(worse)} find it worse{_listed(worse)}, and the rest do not tell the two "
            f"apart. **{claim(tests, better, worse)}**"
        )
    contrasts = corrected(differences, MEAN_OF_SINGLE)
    if len(contrasts):
        more, less, _ = told(contrasts, lower=metrics.lower_is_better(contrasts))
        lines.append(
            f"- More types at a lower rank, or one at a higher? {SEVERAL} is better than the mean of the four single "
            f"types in {len(more)} of {len(contrasts)} tests{_listed(more)} and worse in {len(less)}"
            f"{_listed(less)}, corrected for all of them; the rest do not tell them apart."
        )
    return lines


def corrected(differences: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The tests against one reference, of all models, tasks and budgets, with p_holm corrected for all of them."""
    tests = differences[(differences["reference"] == reference) & differences["p"].notna()]
    return tests.assign(p_holm=statistics.holm(tests["p"]))


def claim(tests: pd.DataFrame, better: pd.DataFrame, worse: pd.DataFrame) -> str:
    """The verdict on the paper's claim, that a budget is best spent on q+v."""
    if len(better):
        return f"That {REFERENCE} is the best use of a budget does not hold here."
    if len(worse) == len(tests):
        return f"That {REFERENCE} is the best use of a budget holds here."
    if len(worse):
        return f"No set is established to be better than {REFERENCE}; that it is the best of all is not decided."
    return f"Whether {REFERENCE} is the best use of a budget is not decided here."


def _listed(rows: pd.DataFrame) -> str:
    parts = [
        f"{', '.join(sets_of(found))} on {task} at {budget:,}"
        for (_, task, budget), found in rows.groupby(["model", "task", "budget"], sort=False)
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def finding(cells: pd.DataFrame, differences: pd.DataFrame) -> str:
    """A list item on the sets of one budget of a model and a task: the best mean, and what the tests establish."""
    lower = metrics.of(cells["metric"].iloc[0]).lower
    ranked = cells.sort_values("mean", ascending=lower, kind="stable", ignore_index=True)
    named = [" ".join(pair) for pair in zip(ranked["weight_types"], mean_texts(ranked), strict=True)]
    line = f"- {cells['budget'].iloc[0]:,} parameters: the best mean of {len(cells)} sets is {named[0]}, the worst "
    line += f"{named[-1]}"
    place = ranked.index[ranked["weight_types"] == REFERENCE]
    if len(place) and 0 < place[0] < len(ranked) - 1:
        line += f"; {named[place[0]]} is number {place[0] + 1}"
    tests = differences[(differences["reference"] == REFERENCE) & differences["p"].notna()]
    if tests.empty:
        return line + "; no test."
    better, worse, _ = map(sets_of, told(tests, lower=lower))
    return f"{line}. Better than {REFERENCE}: {listed(better)}; worse: {listed(worse)}."


def scale(cells: pd.DataFrame) -> str:
    """A sentence on alpha, the ranks, and so the factor of the update."""
    alphas, factors = cells["alpha"].unique(), cells["alpha"] / cells["r"]
    alpha = f"alpha is {alphas[0]:g} in all runs" if len(alphas) == 1 else "alpha differs between runs"
    return (
        f"{alpha}; with r from {cells['r'].min()} to {cells['r'].max()} the update's factor alpha / r is between "
        f"{factors.min():.3g} and {factors.max():.3g}, and acts as a learning rate does."
    )


def quality(cells: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Table 5 of a model and task: a row a set, a column a metric and budget, and the paper's tasks beside."""
    names = sorted({*cells["weight_types"], *paper["weight_types"]}, key=order)
    columns: dict[str, Any] = {}
    several = cells["metric"].nunique() > 1
    for metric, own in cells.groupby("metric", sort=False):
        title = f"{metrics.of(str(metric)).heading}, " if several else ""
        columns |= _columns(own, mean_texts(own), names, title)
    for task, numbers in paper.groupby("task", sort=False):
        shown = [f"{100 * mean:.1f} (r = {r})" for mean, r in zip(numbers["mean"], numbers["r"], strict=True)]
        known = dict(zip(numbers["weight_types"], shown, strict=True))
        columns[f"paper: {task}"] = [known.get(name) for name in names]
    return pd.DataFrame(columns)


def bought(cells: pd.DataFrame) -> pd.DataFrame:
    """The rank of each set at each budget and, where it misses the budget, its own number of parameters."""
    texts = [
        f"r = {row['r']}" + (f": {row['lora_params']:,} ({row['deviation']:+.1%})" if row["deviation"] else "")
        for row in cells.to_dict("records")
    ]
    return pd.DataFrame(_columns(cells, texts, sets_of(cells)))


def _minus(rows: pd.DataFrame) -> pd.DataFrame:
    fields = rows[["difference", "interval", "p_holm", "pairs"]].itertuples(index=False, name=None)
    texts = [
        statistics.difference_text(minus, interval, p, scale, digits) if pairs else "no seed in common"
        for (minus, interval, p, pairs), (scale, digits) in zip(fields, metrics.units(rows), strict=True)
    ]
    return pd.DataFrame(_columns(rows, texts, sets_of(rows)))


def _columns(rows: pd.DataFrame, texts: Sequence[str], names: Sequence[str], title: str = "") -> dict[str, Any]:
    """The columns of a table with a row for each of `names` and a column a budget, whose heads begin with title; texts:
    one a row of `rows`."""
    known = dict(zip(zip(rows["weight_types"], rows["budget"], strict=True), texts, strict=True))
    columns: dict[str, Any] = {"weights": list(names)}
    for budget in sorted(rows["budget"].unique()):
        columns[f"{title}{budget:,} parameters"] = [known.get((name, budget)) for name in names]
    return columns


def learning_rates(rates: pd.DataFrame) -> pd.DataFrame:
    """The rates tried for each set of a model and task, with their validation scores; see RATES. rates is of
    `kit.tuning.rates`, with weight_types."""
    lower = rates["metric"].iloc[0] in tuning.LOWER_IS_BETTER
    outcomes = tuning.outcomes(rates).set_index("settings")
    rows = []
    for settings, cell in sorted(rates.groupby("settings"), key=lambda group: order(group[1]["weight_types"].iloc[0])):
        best = outcomes.loc[str(settings)]
        row: dict[str, Any] = {"settings": settings}
        for lr, value, chosen in zip(cell["lr"], cell["value"], cell["chosen"], strict=True):
            text = "×" if pd.isna(value) else f"{value:.3f}" if lower else f"{100 * value:.1f}"
            row[f"{lr:g}"] = f"**{text}**" if chosen else text
        rows.append(row | {"at the edge": "yes" if best["at_edge"] else "no"})
    columns = ["settings", *(f"{lr:g}" for lr in sorted(rates["lr"].unique())), "at the edge"]
    return pd.DataFrame(rows, columns=columns).rename(columns={"settings": f"validation {rates['metric'].iloc[0]}"})
