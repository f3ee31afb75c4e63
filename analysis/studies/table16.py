"""Few training examples or many: what methods make of them, the question of the paper's Table 16."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import language_runs, naming, samples, table_md, tables, task_figures, task_tables, tuning
from analysis.kit.cells import mean_texts
from analysis.kit.cells import paper as printed
from analysis.kit.compare import METHOD, REFERENCES, minus_texts, reference
from analysis.kit.language_runs import DETAILS
from analysis.kit.method_tables import TASK
from analysis.maths import statistics

PAPER_MODEL, PAPER_TASK = "GPT-3 175B", "MNLI-m"
PAPER_SIZES = {"n100": 100, "n1k": 1000, "n10k": 10_000, "n392k": 392_000}
READING = f"""\
# Few training examples or many (the paper's Table 16)

Scores are those of the test split in percent: mean ± half-width of the 95% Student-t interval (number of seeds); one
seed gives no interval and no test. n: training examples, the first n of one order that is the same for all methods and
seeds. Differences are between runs of one n, in points, paired by seed, ± half-width of their own 95% interval; p is
of the paired t-test, by Holm's method corrected for the comparisons with that method at that n (the intervals are
not), and `*` marks p < 0.05. The highest of several means is so in part by chance. The paper's numbers are those of
its Table 16: {PAPER_MODEL} on {PAPER_TASK}, another task with three classes, and single numbers: compare the shape of a
line, not its level."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a method and number of examples), table.md, table16.png, samples.md and
    samples.csv.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a method has, at one number of
    examples, two runs of a seed or runs of different learning rates.
    """
    runs = language_runs.load(study_dir, runs_dir)
    scores = language_runs.final_scores(runs)
    test = scores[scores["main"]].sort_values([*TASK, "train_examples"], kind="stable")
    told = language_runs.with_setting(test, "n=" + test["train_examples"].astype(str))
    tuning.check(told, study_dir)
    table = tabulate(test)
    data = language_runs.tested(test, runs_dir, study_dir)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md", "table16.png")}
    runs[[*tables.RUNS_COLUMNS, *DETAILS]].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failures = language_runs.failures(study_dir, tables.load_failed(study_dir, runs_dir))
    text = language_runs.report(
        READING, table, data, failures, section, f", beside the paper's {PAPER_TASK}: another task"
    )
    table_md.write(outputs["table.md"], text, runs)
    floors = {key: data[key[0], key[1]].majority for key in language_runs.choices(table)}
    named = test.assign(line=language_runs.line_names(test))
    task_figures.draw_examples(table, named, paper_points(), floors, outputs["table16.png"])
    return [*outputs.values(), *samples.write(told, runs_dir, study_dir)]


def tabulate(test: pd.DataFrame) -> pd.DataFrame:
    """A row a method and train_examples: the columns of `kit.task_tables.tabulate`, compared at each number of
    examples, all_examples, epochs and line, the method's name in the figure."""
    keys = [*TASK, *METHOD, "train_examples"]
    about = test.groupby(keys).agg({"all_examples": "max", "epochs": "max"})
    table = task_tables.tabulate(test, ["train_examples"]).merge(about, on=keys)
    return table.assign(line=language_runs.line_names(table))


def paper_points() -> pd.DataFrame:
    """The paper's Table 16: label, line, model, task, train_examples and mean, a fraction."""
    rows = printed("table16_low_data").melt("method", list(PAPER_SIZES), var_name="size", value_name="mean")
    rows = rows.assign(train_examples=rows["size"].map(PAPER_SIZES), mean=rows["mean"] / 100, line=rows["method"])
    return rows.rename(columns={"method": "label"}).drop(columns="size").assign(model=PAPER_MODEL, task=PAPER_TASK)


def section(cells: pd.DataFrame) -> list[str]:
    """What is said of a task: what was found, scores by n beside the paper's, and differences at each n."""
    lines = [*epochs(cells), _rates(cells), *findings(cells), "", tables.markdown(quality(cells))]
    for name in REFERENCES:
        if f"{name}_pairs" in cells and cells[f"{name}_pairs"].notna().any():
            lines += ["", f"Minus {name}, at each n:", "", tables.markdown(differences(cells, name))]
    return lines


def epochs(cells: pd.DataFrame) -> list[str]:
    """How long the runs of each n were trained, as markdown list items."""
    lines = []
    for n, rows in cells.groupby("train_examples"):
        counts = sorted(rows["epochs"].unique())
        seen = " or ".join(f"{count * int(str(n)):,}" for count in counts)
        text = " or ".join(map(str, counts))
        lines.append(f"- {_head(rows)}: {text} {'epoch' if text == '1' else 'epochs'}, so {seen} examples are seen.")
    return lines


def _rates(cells: pd.DataFrame) -> str:
    """The learning rates as a markdown list item: whether a method has one for all n, or others for few examples."""
    rates = cells.groupby("line", sort=False)["lr"].unique()
    shown = "; ".join(f"{line} {', '.join(map('{:g}'.format, sorted(found)))}" for line, found in rates.items())
    note = "" if rates.map(len).max() > 1 else " One for all n: none is tuned for few examples."
    return f"- Learning rates: {shown}.{note}"


def findings(cells: pd.DataFrame) -> list[str]:
    """At each n the highest mean, and LoRA minus full fine-tuning, as markdown list items."""
    lines = []
    for _, rows in cells.groupby("train_examples"):
        best = rows.sort_values("mean", ascending=False, kind="stable").iloc[0]
        line = f"- {_head(rows)}: highest mean {best['line']}, {statistics.mean_text(*best[['mean', 'interval', 'n']])}"
        lora = reference(rows, "lora")
        if lora:
            text = dict(zip(naming.keys(rows), minus_texts(rows, "full"), strict=True))[lora]
            line += f"; lora minus full {text}" if text else ""
        lines.append(f"{line}.")
    return lines


def quality(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column an n, then the paper's, as text."""
    rows = cells.drop_duplicates(METHOD)
    columns = task_tables.names(rows)
    for _, found in cells.groupby("train_examples"):
        columns[_head(found)] = task_tables.looked_up(found, mean_texts(found), rows, METHOD)
    theirs = paper_points()
    for size, found in theirs.groupby("train_examples"):
        texts = dict(zip(found["label"], 100 * found["mean"], strict=True))
        shown = [f"{texts[label]:.1f}" if label in texts else None for label in rows["label"]]
        columns[f"paper, n = {size:,}"] = shown
    return pd.DataFrame(columns)


def differences(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    """A row a method, a column an n: the difference to the reference `name`, as text."""
    rows = cells[cells[f"{name}_pairs"].notna()].drop_duplicates(METHOD)
    columns: dict[str, Any] = {"method": rows["label"], "settings": rows["settings"].where(rows["settings"] != "")}
    for _, found in cells.groupby("train_examples"):
        columns[_head(found)] = task_tables.looked_up(found, minus_texts(found, name), rows, METHOD)
    return pd.DataFrame(columns)


def _head(rows: pd.DataFrame) -> str:
    n = f"n = {rows['train_examples'].iloc[0]:,}"
    return f"{n} (all)" if rows["all_examples"].all() else n
