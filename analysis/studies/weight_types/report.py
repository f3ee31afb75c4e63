"""table.md of the study of weight types: what was found, the paper's Table 5 beside ours, tests and learning rates."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from analysis.kit import pages, tables, tuning
from analysis.kit.cells import mean_texts
from analysis.kit.data import Data
from analysis.kit.sentences import caution, listed, told
from analysis.maths import statistics
from analysis.studies.weight_types.sets import MEAN_OF_SINGLE, PLACE, REFERENCE, SEVERAL, order, sets_of

READING = """\
A budget is a number of parameters of LoRA, without a task's head; every set of weight types gets the rank that it
buys. Ours are test scores in percent, mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives
no interval. The paper's columns are the validation accuracy of its Table 5: {paper}, {budget:,} parameters, attention
only, single numbers on other tasks: compare how sets differ, not levels. There, {best}."""
TESTS = f"""\
Below, differences are in points, paired by seed, ± half-width of their own 95% interval; p is of the paired t-test, by
Holm's method corrected for the sets that are compared with {REFERENCE} at that budget; `*` marks p < 0.05."""
RATES = """\
Learning rates were chosen on validation data, for each set at one budget and with one seed, and are used for all its
budgets and seeds. All sets start with as many rates, and more are tried where the best lies at the edge. Bold: chosen;
×: did not train."""


def page(ours: Callable[[Data], pd.DataFrame], paper: pd.DataFrame) -> list[pages.Block]:
    """The blocks of table.md between its heading and the failed runs; ours: gives the rows of `sets.tabulate`, and
    paper is the same of the paper."""
    about = {"paper": paper["model"].iloc[0], "budget": paper["budget"].iloc[0], "best": paper_best(paper)}

    def found(data: Data) -> list[str]:
        cautions = [f"- {model}: {_caution(cells)}" for model, cells in data.once(ours).groupby("model", sort=False)]
        return [*verdicts(data.once(ours), data["differences.csv"]), *cautions]

    return [
        textwrap.fill(READING.format(**about), 119),
        pages.under("## What was found", found),
        lambda data: [TESTS] if data.rates.empty else [TESTS, RATES],
        pages.sections(
            "## {task} ({model})",
            lambda data: _findings(data.once(ours), data),
            pages.under("Test {metric}:", pages.table(lambda data: quality(data.once(ours), paper))),
            pages.under("What a budget buys:", pages.table(lambda data: bought(data.once(ours)))),
            pages.under(f"Minus {REFERENCE}:", pages.table(lambda data: _minus(_compared(data)))),
            pages.under("Learning rates:", pages.table(_rates)),
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


def _compared(data: Data) -> pd.DataFrame:
    rows = data["differences.csv"]
    return rows[rows["reference"] == REFERENCE]


def _rates(data: Data) -> pd.DataFrame:
    rates = data.frame("learning_rates.csv")
    return pd.DataFrame() if rates is None or rates.empty else learning_rates(rates)


def _caution(cells: pd.DataFrame) -> str:
    return caution(cells["n"], int(cells.groupby(["task", "budget"]).size().max()) - 1)


def paper_best(paper: pd.DataFrame) -> str:
    """Which sets have the highest number of the paper, in each of its tasks."""
    parts = []
    for task, cells in paper.groupby("task", sort=False):
        best = cells.loc[cells["mean"] == cells["mean"].max(), "weight_types"]
        parts.append(f"{' and '.join(best)} {'is' if len(best) == 1 else 'are'} highest on {task}")
    return ", ".join(parts)


def verdicts(table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What all budgets, tasks and models come to, as markdown list items. Tests are corrected for all of their kind."""
    groups = [cells.set_index("weight_types")["mean"] for _, cells in table.groupby([*PLACE, "budget"], sort=False)]
    compared = [means for means in groups if REFERENCE in means and len(means) > 1]
    if not compared:
        return [f"- {REFERENCE} has no run beside another set: nothing is compared."]
    first = sum(means[REFERENCE] == means.max() for means in compared)
    lines = [
        f"- {REFERENCE} has the highest mean in {first} of {len(compared)} comparisons (a model, a task, a budget)."
    ]
    tests = corrected(differences, REFERENCE)
    better, worse, _ = told(tests)
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
        more, less, _ = told(contrasts)
        lines.append(
            f"- More types at a lower rank, or one at a higher? {SEVERAL} minus the mean of the four single types is "
            f"above zero in {len(more)} of {len(contrasts)} tests{_listed(more)} and below in {len(less)}"
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
    """A list item on the sets of one budget of a model and a task: the highest mean, and what the tests establish."""
    ranked = cells.sort_values("mean", ascending=False, kind="stable", ignore_index=True)
    named = [" ".join(pair) for pair in zip(ranked["weight_types"], mean_texts(ranked), strict=True)]
    line = f"- {cells['budget'].iloc[0]:,} parameters: the highest mean of {len(cells)} sets is {named[0]}, the lowest "
    line += f"{named[-1]}"
    place = ranked.index[ranked["weight_types"] == REFERENCE]
    if len(place) and 0 < place[0] < len(ranked) - 1:
        line += f"; {named[place[0]]} is number {place[0] + 1}"
    tests = differences[(differences["reference"] == REFERENCE) & differences["p"].notna()]
    if tests.empty:
        return line + "; no test."
    better, worse, _ = map(sets_of, told(tests))
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
    """Table 5 of a model and task: a row a set, a column a budget, and the paper's tasks beside."""
    names = sorted({*cells["weight_types"], *paper["weight_types"]}, key=order)
    columns = _columns(cells, mean_texts(cells), names)
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
    texts = [
        statistics.difference_text(*row[:3]) if row[3] else "no seed in common"
        for row in rows[["difference", "interval", "p_holm", "pairs"]].itertuples(index=False, name=None)
    ]
    return pd.DataFrame(_columns(rows, texts, sets_of(rows)))


def _columns(rows: pd.DataFrame, texts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """The columns of a table with a row for each of `names` and a column a budget; texts: one a row of `rows`."""
    known = dict(zip(zip(rows["weight_types"], rows["budget"], strict=True), texts, strict=True))
    columns: dict[str, Any] = {"weights": list(names)}
    for budget in sorted(rows["budget"].unique()):
        columns[f"{budget:,} parameters"] = [known.get((name, budget)) for name in names]
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
