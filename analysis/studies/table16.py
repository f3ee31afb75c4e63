"""Few training examples or many: what methods make of them, the question of the paper's Table 16."""

import pandas as pd

from analysis.kit import cells, language_runs, marks, method_tables, metrics, pages, samples
from analysis.kit.compare import METHOD, REFERENCES, minus_texts, reference
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.study import Study

PAPER_MODEL, PAPER_TASK = "GPT-3 175B", "MNLI-m"
PAPER_SIZES = {"n100": 100, "n1k": 1000, "n10k": 10_000, "n392k": 392_000}
CELL = [*TASK, *METHOD, "train_examples"]
READING = f"""\
Scores are those of the test split, in percent but for the loss, nats a token, by which methods are compared first: it
scatters least between seeds. They are means ± half-width of the 95% Student-t interval (number of seeds); one seed
gives no interval and no test. n: training examples, the first n of one order that is the same for all methods and
seeds. Differences are between runs of one n, paired by seed, ± half-width of their own 95% interval; p is
of the paired t-test, by Holm's method corrected for the comparisons with that method at that n (the intervals are
not), and `*` marks p < 0.05. The best of several means is so in part by chance. The paper's numbers are those of
its Table 16: {PAPER_MODEL} on {PAPER_TASK}, another task with three classes, and single numbers: compare the shape of a
line, not its level."""


def scored(final: pd.DataFrame) -> pd.DataFrame:
    """The test losses and scores, few examples first, with `line`, the method's name in the figure."""
    test = language_runs.scored(final.sort_values("train_examples", kind="stable"))
    return test.assign(line=language_runs.line_names(test))


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL: the columns of `kit.method_tables.tabulate`, compared at each number of examples,
    all_examples, epochs and line."""
    about = {"all_examples": "max", "epochs": "max", "line": "first"}
    found = method_tables.tabulate(data.scores, ["train_examples"])
    return found.merge(data.scores.groupby(CELL).agg(about), on=CELL)


def paper() -> pd.DataFrame:
    """The paper's Table 16: label, line, model, task, metric, train_examples and mean, a fraction."""
    rows = cells.paper("table16_low_data").melt("method", list(PAPER_SIZES), var_name="size", value_name="mean")
    rows = rows.assign(train_examples=rows["size"].map(PAPER_SIZES), mean=rows["mean"] / 100, line=rows["method"])
    return rows.assign(label=rows["method"], model=PAPER_MODEL, task=PAPER_TASK, metric="accuracy")


def findings(data: Data) -> list[str]:
    """How long runs were trained at each n, their learning rates, the best mean of each n and LoRA minus full
    fine-tuning, as markdown list items."""
    rows = data["table.csv"]
    long, best = [], []
    for _, at in rows.groupby("train_examples"):
        counts = sorted(at["epochs"].unique())
        seen = " or ".join(f"{count * at['train_examples'].iloc[0]:,}" for count in counts)
        text = " or ".join(map(str, counts))
        long.append(f"- {_head(at)}: {text} {'epoch' if text == '1' else 'epochs'}, so {seen} examples are seen.")
        lower = metrics.lower_is_better(at).any()
        first = at.sort_values("mean", ascending=bool(lower), kind="stable").head(1)
        line = f"- {_head(at)}: best mean {first['line'].iloc[0]}, {cells.mean_texts(first)[0]}"
        lora = at[at["settings"] == (reference(at, "lora") or ("", ""))[1]]
        [minus] = minus_texts(lora[lora["label"] == "lora"], "full") or [None]
        best.append(f"{line}; lora minus full {minus}." if minus else f"{line}.")
    rates = rows.groupby("line", sort=False)["lr"].unique()
    shown = "; ".join(f"{line} {', '.join(map('{:g}'.format, sorted(found)))}" for line, found in rates.items())
    note = "" if rates.map(len).max() > 1 else " One for all n: none is tuned for few examples."
    return [*long, f"- Learning rates: {shown}.{note}", *best]


def quality(data: Data) -> pd.DataFrame:
    """A row a method, a column an n, then the paper's where the metric is its own, as text."""
    found, theirs = data["table.csv"], paper()
    theirs = theirs[theirs["metric"].isin(found["metric"])]
    rows = found.drop_duplicates(METHOD)
    numbers = cells.across(
        rows,
        theirs,
        "train_examples",
        ["label"],
        lambda at: [f"{100 * mean:.1f}" for mean in at["mean"]],
        "paper, n = {:,}",
    )
    return pd.DataFrame(method_tables.names(rows) | by_size(rows, found) | numbers)


def by_size(
    rows: pd.DataFrame, found: pd.DataFrame, texts: cells.Texts = cells.mean_texts
) -> dict[str, list[str | None]]:
    """For each n the texts of its cells, found for the methods of `rows`."""
    heads = {n: _head(at) for n, at in found.groupby("train_examples")}
    return cells.across(rows, found, "train_examples", METHOD, texts, lambda n: heads[n])


def minus(name: str) -> pages.Block:
    """The differences to a reference: a row a method, a column an n."""

    def differences(data: Data) -> pd.DataFrame:
        found = data["table.csv"]
        found = found[found[f"{name}_pairs"].notna()] if f"{name}_pairs" in found else found[:0]
        rows = found.drop_duplicates(METHOD)
        texts = by_size(rows, found, lambda at: minus_texts(at, name))
        return pd.DataFrame(method_tables.names(rows, sizes=False) | texts)

    return pages.under(f"Minus {name}, at each n:", pages.table(differences))


def _head(rows: pd.DataFrame) -> str:
    n = f"n = {rows['train_examples'].iloc[0]:,}"
    return f"{n} (all)" if rows["all_examples"].all() else n


STUDY = Study(
    runs=language_runs.load,
    columns=language_runs.DETAILS,
    scores=scored,
    cell=CELL,
    one_rate=True,
    tables={"table.csv": table},
    page=[
        "# Few training examples or many (the paper's Table 16)",
        READING,
        language_runs.warning(lambda data: data["table.csv"], [*TASK, "train_examples"], others=1),
        pages.sections(
            f"## {{task}} ({{model}}, test {{metric}}), beside the paper's {PAPER_TASK}: another task",
            pages.lines(language_runs.floor_line, findings),
            pages.table(quality),
            *map(minus, REFERENCES),
        ),
        pages.failed_runs,
    ],
    figures={
        "table16.png": marks.Lines(
            x="train_examples", line="line", label="training examples", legend="method",
            of=lambda data: data["table.csv"], paper=paper, across=language_runs.floor,
        )
    },
    more=[samples.by(lambda runs: "n=" + runs["train_examples"].astype(str))],
)  # fmt: skip
