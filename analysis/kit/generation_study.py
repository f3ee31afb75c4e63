"""A study of a table of the paper on generated text: methods that are each tuned alone, beside the paper's numbers."""

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.kit import cells, language_runs, method_figures, method_tables, metrics, naming, pages, samples, tuning
from analysis.kit.compare import REFERENCES
from analysis.kit.data import Data
from analysis.kit.generation import METEOR, TASK, TEST, Generated, measured, share
from analysis.kit.sentences import caution
from analysis.kit.study import Study

READING = f"""\
Ours are test scores, means over seeds ± half-width of the 95% Student-t interval (number of seeds); one seed gives no
interval. Share is that of the parameters that full fine-tuning trains. An arrow marks metrics of which lower is better.
The paper's rows are its {{paper}}, of other models on {{task}}, trained on all of it: compare the order of methods and
what they need, not levels. Differences are paired by seed, ± half-width of their own 95% interval;
{TEST}
Times and memory are those of the runs as they were made, not a benchmark. In table.csv every metric is as it is stored,
which for those in percent is a fraction.
{METEOR}"""
TUNING = """\
Only the learning rate is tuned, for every method on its own, by the best validation {metric} with the first seed; the
test data choose nothing. Every method starts with a grid of as many rates, which grows where the best lies at its edge.
Good to 1 or 2 points is the factor from the lowest to the highest rate around the best whose validation {metric} is
worse by no more than 0.01 or 0.02, interpolated over log lr; ≥ says that it reaches the last rate tried."""

DIAMONDS = "diamonds: the paper's {}, on the upper axis, which is shifted so that both agree at the dashed line"


def study(title: str, paper: str, task: str, columns: Mapping[str, str], fractions: Sequence[str] = ()) -> Study:
    """The study of a table of the paper, analysis/paper/<paper>.csv, on its task: methods that are each tuned alone.

    columns: our metrics, in their order, and the paper's columns; fractions: those that the paper prints as such.
    """
    number = f"Table {int(paper[5:7])}"

    def theirs() -> pd.DataFrame:
        table = cells.paper(paper)
        rows = table[["model"]].assign(task=task, label=table["method"])
        rows["trainable_params"] = 1e6 * table["trainable_params"].str.removesuffix("M").astype(float)
        units = {name: 1 if name in fractions else metrics.of(name).scale for name in columns}
        shown = {name: table[column] / units[name] for name, column in columns.items()}
        return rows.assign(share=share(rows), **shown)

    generated = Generated(theirs, [*columns])

    def named(data: Data) -> str:
        tasks = data.scores["task"].unique()
        other = f"Text generation on {', '.join(tasks)} (as in the paper's {number})"
        return f"# {title} (the paper's {number})" if task in tasks else f"# {other}"

    def tuned(data: Data) -> str:
        watched = " or ".join(data.rates["metric"].unique())
        return TUNING.format(metric=watched) if watched else method_tables.UNTUNED

    def found(data: Data) -> list[str]:
        ours = generated.ours(data)
        best = [_best(rows) for _, rows in data.once(generated.long).groupby("metric", sort=False)]
        return [
            f"- {caution(ours['n'], len(ours) - 1)}",
            f"- The best mean, be it by chance: {'; '.join(best)}.",
            *generated.verdicts(data),
            *method_tables.tuning_findings(ours),
        ]

    about = {
        "method": lambda rows: rows["label"],
        "settings": lambda rows: rows["settings"].replace("", None),
        "parameters": lambda rows: rows["trainable_params"].map("{:,}".format),
        "share": lambda rows: (100 * rows["share"]).astype(object).map("{:.3g}%".format, na_action="ignore"),
    }
    return Study(
        scores=measured,
        cell=tuning.CELL,
        one_rate=True,
        tables={
            "table.csv": generated.table,
            "differences.csv": generated.differences,
            "learning_rates.csv": tuning.tried,
        },
        page=[
            named,
            READING.format(paper=number, task=task),
            tuned,
            pages.sections(
                "## {task} ({model})",
                pages.lines(language_runs.inputs, found),
                pages.table(lambda data: generated.quality(data, about)),
                generated.minus,
                pages.table(lambda data: method_tables.effort(generated.ours(data))),
                by=TASK,
                where={"source": "ours"},
            ),
            method_tables.pending,
            pages.failed_runs,
        ],
        figures={
            f"table{int(paper[5:7])}.png": method_figures.Methods(
                of=generated.shown, base=REFERENCES[::-1], note=DIAMONDS.format(theirs()["model"].iloc[0])
            ),
            "learning_rates.png": method_figures.rates,
        },
        more=[samples.of],
    )


def _best(rows: pd.DataFrame) -> str:
    metric = metrics.of(rows["metric"].iloc[0])
    place = (rows["mean"] if metric.lower else -rows["mean"]).argmin()
    best = rows.iloc[int(place)]
    return f"{metric.title} {naming.title(best['label'], best['settings'])}"
