"""Demonstrations in the prompt of a frozen language model, or training it: the question of the paper's Table 8."""

from pathlib import Path

import pandas as pd

from analysis.kit import language_runs, naming, samples, table_md, tables, task_figures, tuning
from analysis.kit.cells import mean_texts
from analysis.kit.cells import paper as printed
from analysis.kit.compare import METHOD
from analysis.kit.language_runs import DETAILS
from analysis.maths import statistics
from analysis.studies.table8 import few_shot
from experiments.records.source import Runs

PAPER_TASKS = {"mnli_m_acc": "MNLI-m", "rte_acc": "RTE"}
PAPER_ROWS = {"gpt3_few_shot": "demonstrations", "gpt3_fine_tuned": "full fine-tuning"}
READING = """\
# Demonstrations or training (the paper's Table 8)

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


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a prompt or trained method), table.md, table8.png, samples.md and samples.csv.

    Returns their paths. Raises InputError if the runs are missing or damaged, or if a row has two runs of a seed or
    runs of different learning rates.
    """
    runs = language_runs.load(study_dir, runs_dir)
    scores = language_runs.final_scores(runs)
    test = few_shot.ordered(scores[scores["main"]])
    frozen = test["label"] == "frozen"
    sizes = ("shots=" + test["shots"].astype(str)).where(frozen, "n=" + test["train_examples"].astype(str))
    told = language_runs.with_setting(test, sizes)
    tuning.check(told, study_dir)
    stored = Runs(study_dir, runs_dir)
    words = {run_id: stored[run_id].predictions.prompt_words for run_id in test["run_id"]}
    table = few_shot.tabulate(test.assign(prompt_words=test["run_id"].map(words)))
    data = language_runs.tested(test, runs_dir, study_dir)

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md", "table8.png")}
    runs[[*tables.RUNS_COLUMNS, *DETAILS]].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failures = language_runs.failures(study_dir, tables.load_failed(study_dir, runs_dir))
    text = language_runs.report(READING, table, data, failures, section)
    table_md.write(outputs["table.md"], text, runs)
    floors = {key: part.majority for key, part in data.items() if key in language_runs.choices(table)}
    named, runs_named = (frame.assign(line=language_runs.line_names(frame)) for frame in (table, test))
    task_figures.draw_shots(named, runs_named, floors, outputs["table8.png"])
    return [*outputs.values(), *samples.write(told, runs_dir, study_dir)]


def section(cells: pd.DataFrame) -> list[str]:
    """What is said of a task: how many examples are worth the best prompt, every row, and the paper's beside."""
    return [*findings(cells), "", tables.markdown(rows(cells)), "", PAPER, "", tables.markdown(beside(cells))]


def findings(cells: pd.DataFrame) -> list[str]:
    """What demonstrations reach, and from how many examples on training is better, as markdown list items."""
    if not cells["best"].any():
        return ["- No run of the frozen model: nothing says what a prompt reaches."]
    best = cells[cells["best"]].iloc[0]
    lines = [f"- Best prompt: {best['shots']} demonstrations, {_mean(best)}."]
    wide = cells[(cells["label"] == "frozen") & (cells["high"] > cells["low"])]
    lines += [
        f"- {row['shots']} demonstrations: {100 * (row['high'] - row['low']):.1f} points from the worst to the best of "
        f"{row['n']} draws."
        for row in wide.to_dict("records")
    ]
    for (label, settings), own in cells[cells["label"] != "frozen"].groupby(METHOD, sort=False):
        tried = ", ".join(f"{n:,}" for n in sorted(own["train_examples"]))
        lines.append(
            f"- {naming.title(label, settings)}, tried at n = {tried}: mean above the best prompt's: "
            f"{_from(few_shot.above(own))}; told apart from it, by the corrected p: {_from(few_shot.told_apart(own))}."
        )
    return lines


def _from(found: few_shot.Passing) -> str:
    if found.smallest is None:
        return "not reached"
    but = f" (but not at {', '.join(f'{n:,}' for n in found.not_at)})" if found.not_at else ""
    return f"from n = {found.smallest:,}{but}"


def _mean(row: pd.Series) -> str:
    return statistics.mean_text(row["mean"], row["interval"], row["n"])


def rows(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a prompt or trained method, as text."""
    frozen = cells["label"] == "frozen"
    fields = cells[["difference", "difference_interval", "p_holm"]].itertuples(index=False, name=None)
    return pd.DataFrame(
        {
            "method": cells["label"],
            "settings": cells["settings"].where(cells["settings"] != ""),
            "shown": cells["shots"].astype(object).where(frozen),
            "trained on": cells["train_examples"].map("{:,}".format).where(~frozen),
            "epochs": cells["epochs"].astype(object).where(~frozen),
            "parameters": cells["trainable_params"].map("{:,}".format).where(~frozen),
            "test": mean_texts(cells),
            "lowest": (100 * cells["low"]).map("{:.1f}".format),
            "highest": (100 * cells["high"]).map("{:.1f}".format),
            "minus best prompt": [
                None if pd.isna(field[0]) else statistics.difference_text(*field) for field in fields
            ],
            "words in the prompt": cells["prompt_words"].map("{:.0f}".format),
            "training (s)": cells["train_seconds"].map("{:.0f}".format).where(~frozen),
        }
    )


def beside(cells: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 8 with ours beside: the best prompt, full fine-tuning and LoRA with most examples, as text."""
    theirs = printed("table08_fewshot").set_index("method").rename(index=PAPER_ROWS)
    most = cells.sort_values("train_examples", kind="stable").drop_duplicates(METHOD, keep="last")
    ours = {
        "demonstrations": [f"{_mean(row)}, {row['shots']} shown" for _, row in cells[cells["best"]].iterrows()],
        "full fine-tuning": _trained(most, "full"),
        "lora": _trained(most, "lora"),
    }
    columns = {"": list(ours), "ours": ["; ".join(texts) or None for texts in ours.values()]}
    for column, task in PAPER_TASKS.items():
        shown = [f"{theirs[column][name]:.1f}" if name in theirs.index else None for name in ours]
        columns[f"paper, {task}"] = shown
    return pd.DataFrame(columns)


def _trained(most: pd.DataFrame, label: str) -> list[str]:
    return [f"{_mean(row)}, n = {row['train_examples']:,}" for _, row in most[most["label"] == label].iterrows()]
