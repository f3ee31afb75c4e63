"""Demonstrations in the prompt of a frozen language model, or training it: the question of the paper's Table 8."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.kit import cells, language_runs, marks, method_tables, naming, pages, samples
from analysis.kit.compare import METHOD
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.study import Study, main_scores
from analysis.maths import statistics
from experiments.records.source import Runs

CELL = [*TASK, *METHOD, "shots", "train_examples"]
PAPER_TASKS = {"mnli_m_acc": "MNLI-m", "rte_acc": "RTE"}
PAPER_ROWS = {"gpt3_few_shot": "demonstrations", "gpt3_fine_tuned": "full fine-tuning"}
ABOUT = {
    "trainable_params": "max", "lr": "first", "epochs": "max", "prompt_words": "mean", "train_seconds": "mean",
}  # fmt: skip
READING = """\
Scores are those of one test split in percent: mean ± half-width of the 95% Student-t interval (runs), and the lowest
and highest run. A run of the frozen model is another draw of demonstrations from the training set, balanced over the
answers and the same for all test inputs, in another order; a run of a trained method is another seed: order of the
training data and, where something new is put on the model, its start. Without demonstrations nothing is drawn: the
score is one number, which has no interval. The best prompt is the one with the highest mean on test data, a choice
that favours prompts. Minus best prompt: in points, not paired, since a draw and a seed have nothing in common, ±
half-width of the 95% interval of Welch's t-test; p is corrected by Holm's method for all trained rows of the task (the
intervals are not), and `*` marks p < 0.05. A trained model is asked without demonstrations. Words in the prompt: the
mean over test inputs, demonstrations included, as they are written, before any cut: what the model reads for every
answer. Training is paid once; its time is that of the runs as they were made, not a benchmark."""
PAPER = """\
The paper's Table 8 is of GPT-3 175B; its few-shot numbers are those of Brown et al. (2020), other tasks than ours.
Beside them ours: the best prompt, and the trained methods with most examples."""


def scored(final: pd.DataFrame) -> pd.DataFrame:
    """The test scores by model and task: prompts by their number of demonstrations, then trained methods by their
    examples."""
    test = main_scores(final)
    places = {key: place for place, key in enumerate(naming.methods(test))}
    place = pd.Series([places[key] for key in naming.keys(test)], test.index)
    by = ["model", "task", "trained", "place", "shots", "train_examples", "seed"]
    keyed = test.assign(trained=test["label"] != "frozen", place=place)
    return keyed.sort_values(by, kind="stable", ignore_index=True)


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL: what `kit.cells.summary` has, ABOUT, exact, best, and for trained
    methods the fields of `maths.statistics.Unpaired` to the task's best prompt, with p_holm.

    A prompt is a row of the method `frozen`; best marks the one with the highest mean of its task. exact: the prompt
    has no demonstrations, so nothing is drawn, and its runs have one score: it has no interval. Holm's correction is
    for the trained rows of a task.
    """
    stored = Runs(data.folder, data.runs_dir)
    words = [stored[run_id].predictions.prompt_words for run_id in data.scores["run_id"]]
    test = data.scores.assign(prompt_words=words)
    groups = test.groupby(CELL, sort=False)
    ends = groups["value"].agg(low="min", high="max")
    found = cells.summary(test, CELL).merge(ends.join(groups.agg(ABOUT)), on=CELL)
    still = found["high"] - found["low"] < statistics.NO_SPREAD
    found["exact"] = still & (found["label"] == "frozen") & (found["shots"] == 0)
    found["interval"] = found["interval"].where(~found["exact"])
    return pd.concat([_compared(rows, test) for _, rows in found.groupby(TASK, sort=False)], ignore_index=True)


def _compared(rows: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    prompts = rows[rows["label"] == "frozen"].sort_values("mean", ascending=False, kind="stable")
    values = {key: runs["value"] for key, runs in test.groupby(CELL, sort=False)}
    best = prompts[:1]
    others = [values[key] for key in best[CELL].itertuples(index=False, name=None)]
    keys = zip(rows["label"], rows[CELL].itertuples(index=False, name=None), strict=True)
    found = [
        statistics.unpaired(values[key], others[0], bool(best["exact"].any()))
        if others and label != "frozen"
        else statistics.NO_TEST
        for label, key in keys
    ]
    rows = rows.assign(best=rows.index.isin(best.index))
    rows[list(statistics.Unpaired._fields)] = np.array(found)
    return rows.assign(p_holm=statistics.holm(rows["p"]))


class Passing(NamedTuple):
    """How many training examples a method needs to pass the best prompt: the smallest number, None if it is not reached
    with the numbers that were run, and the larger numbers that do not pass."""

    smallest: int | None
    not_at: list[int]

    def __str__(self) -> str:
        but = f" (but not at {', '.join(f'{n:,}' for n in self.not_at)})" if self.not_at else ""
        return "not reached" if self.smallest is None else f"from n = {self.smallest:,}{but}"


def above(rows: pd.DataFrame) -> Passing:
    """Where the mean is above the best prompt's, of the rows of one trained method, of `table`."""
    return _passing(rows["train_examples"], rows["difference"] > 0)


def told_apart(rows: pd.DataFrame) -> Passing:
    """Where that difference is established too: p, corrected for all trained rows of the task, is below 0.05."""
    return _passing(rows["train_examples"], (rows["difference"] > 0) & (rows["p_holm"] < 0.05))


def _passing(sizes: pd.Series, passed: pd.Series) -> Passing:
    first = sizes[passed].min() if passed.any() else None
    return Passing(first, [] if first is None else sorted(sizes[~passed & (sizes > first)]))


def findings(data: Data) -> list[str]:
    """What demonstrations reach, and from how many examples on training is better, as markdown list items."""
    rows = data["table.csv"]
    best = rows[rows["best"]]
    if best.empty:
        return ["- No run of the frozen model: nothing says what a prompt reaches."]
    lines = [f"- Best prompt: {best['shots'].iloc[0]} demonstrations, {cells.mean_texts(best)[0]}."]
    wide = rows[(rows["label"] == "frozen") & (rows["high"] > rows["low"])]
    lines += [
        f"- {row['shots']} demonstrations: {100 * (row['high'] - row['low']):.1f} points from the worst to the best of "
        f"{row['n']} draws."
        for row in wide.to_dict("records")
    ]
    for (label, settings), own in rows[rows["label"] != "frozen"].groupby(METHOD, sort=False):
        tried = ", ".join(f"{n:,}" for n in sorted(own["train_examples"]))
        lines.append(
            f"- {naming.title(label, settings)}, tried at n = {tried}: mean above the best prompt's: "
            f"{above(own)}; told apart from it, by the corrected p: {told_apart(own)}."
        )
    return lines


def texts(data: Data) -> pd.DataFrame:
    """A row a prompt or trained method, as text."""
    rows = data["table.csv"]
    frozen = rows["label"] == "frozen"
    fields = rows[["difference", "difference_interval", "p_holm"]].itertuples(index=False, name=None)
    columns = {
        "shown": rows["shots"].astype(object).where(frozen),
        "trained on": rows["train_examples"].map("{:,}".format).where(~frozen),
        "epochs": rows["epochs"].astype(object).where(~frozen),
        "parameters": rows["trainable_params"].map("{:,}".format).where(~frozen),
        "test": cells.mean_texts(rows),
        "lowest": (100 * rows["low"]).map("{:.1f}".format),
        "highest": (100 * rows["high"]).map("{:.1f}".format),
        "minus best prompt": [None if pd.isna(field[0]) else statistics.difference_text(*field) for field in fields],
        "words in the prompt": rows["prompt_words"].map("{:.0f}".format),
        "training (s)": rows["train_seconds"].map("{:.0f}".format).where(~frozen),
    }
    return pd.DataFrame(method_tables.names(rows, sizes=False) | columns)


def beside(data: Data) -> pd.DataFrame:
    """The paper's Table 8 with ours beside: the best prompt, full fine-tuning and LoRA with most examples, as text."""
    theirs = cells.paper("table08_fewshot").set_index("method").rename(index=PAPER_ROWS)
    rows = data["table.csv"]
    most = rows.sort_values("train_examples", kind="stable").drop_duplicates(METHOD, keep="last")
    ours = {
        "demonstrations": _listed(rows[rows["best"]], "{shots} shown"),
        "full fine-tuning": _listed(most[most["label"] == "full"], "n = {train_examples:,}"),
        "lora": _listed(most[most["label"] == "lora"], "n = {train_examples:,}"),
    }
    columns = {"": list(ours), "ours": list(ours.values())}
    for column, task in PAPER_TASKS.items():
        columns[f"paper, {task}"] = list(theirs[column].reindex(list(ours)).map("{:.1f}".format, na_action="ignore"))
    return pd.DataFrame(columns)


def _listed(rows: pd.DataFrame, about: str) -> str | None:
    pairs = zip(cells.mean_texts(rows), rows.to_dict("records"), strict=True)
    return "; ".join(f"{text}, {about.format_map(row)}" for text, row in pairs) or None


def sides(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as they are drawn, in two panels a task, by what `x` is: demonstrations of the frozen model, or
    examples."""
    frozen = rows["label"] == "frozen"
    about = frozen.map({True: "demonstrations in the prompt, nothing trained", False: "training examples"})
    x = rows["shots"].where(frozen, rows["train_examples"])
    return rows.assign(about=about, x=x, line=language_runs.line_names(rows))


def drawn(data: Data) -> pd.DataFrame:
    """The rows of the table; a score that nothing is drawn for is known, its interval of no width."""
    rows = data["table.csv"]
    return sides(rows.assign(interval=rows["interval"].where(~rows["exact"], 0.0)))


def levels(data: Data) -> dict[str, float]:
    """What the best prompt of a task reaches, and an answer that is always the same."""
    best = data["table.csv"].query("best")
    return dict(zip(["best prompt"], best["mean"], strict=False)) | language_runs.floor(data)


def sizes(runs: pd.DataFrame) -> pd.Series:
    """What tells prompts, or the runs of a method, apart."""
    examples = "n=" + runs["train_examples"].astype(str)
    return ("shots=" + runs["shots"].astype(str)).where(runs["label"] == "frozen", examples)


STUDY = Study(
    runs=language_runs.load,
    columns=language_runs.DETAILS,
    scores=scored,
    cell=CELL,
    one_rate=True,
    tables={"table.csv": table},
    page=[
        "# Demonstrations or training (the paper's Table 8)",
        READING,
        language_runs.warning(lambda data: data["table.csv"][data["table.csv"]["label"] != "frozen"]),
        pages.sections(
            "## {task} ({model}, test {metric})",
            pages.lines(language_runs.floor_line, findings),
            pages.table(texts),
            PAPER,
            pages.table(beside),
        ),
        pages.failed_runs,
    ],
    figures={
        "table8.png": marks.Lines(
            x="x", line="line", label="about", legend="method", of=drawn,
            runs=lambda data: sides(data.scores), across=levels, by=[*TASK, "about"], columns=2,
        )
    },
    more=[samples.by(sizes)],
)  # fmt: skip
