"""What a language model forgets by being trained: its loss on other texts before and after, beside what it learns."""

from pathlib import Path

import pandas as pd

from analysis.kit import language_runs, measured, naming, table_md, tables, task_tables, tuning
from analysis.kit.method_tables import TASK
from analysis.maths import statistics
from analysis.studies.forgetting import figure as forgetting_figure
from analysis.studies.forgetting.report import FORGETTING, report
from experiments.measure import schemas

MEASURED = (schemas.FORGETTING.file,)
LOSSES = ["run_id", "text", "loss_before", "loss_after", "windows", "tokens"]


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes runs.csv, table.csv (a row a method and metric: a text's forgetting, the test loss, the task's own
    metric), ranks.csv (LoRA's largest rank minus its smallest), table.md and forgetting.png.

    Returns their paths. Raises InputError if the runs or forgetting.csv are missing or damaged, or if a method has two
    runs of a seed or runs of different learning rates.
    """
    runs = naming.arranged(tables.load_runs(study_dir, runs_dir))
    test = tables.in_role(runs, "study")
    test = test[(test["split"] == "test") & (test["main"] | (test["metric"] == "loss"))]
    tuning.check(test[test["main"]], study_dir)
    losses = measured.read(study_dir, schemas.FORGETTING, set(test["run_id"]))[LOSSES]
    scores = with_forgetting(test, losses)
    table = tabulate(scores)
    ranks = over_ranks(scores)
    failures = language_runs.failures(study_dir, tables.load_failed(study_dir, runs_dir))

    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "ranks.csv", "table.md", "forgetting.png")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    ranks.to_csv(outputs["ranks.csv"], index=False, float_format="%.6g")
    table_md.write(outputs["table.md"], report(table, ranks, losses, scores, failures), runs)
    forgetting_figure.draw(table, scores, outputs["forgetting.png"])
    return list(outputs.values())


def with_forgetting(test: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """test, and for each text of `losses` rows of a metric FORGETTING + text, of which `before` is the base model's
    loss and value the rise. The columns `line` and r are those of `lora_lines`."""
    found = test[test["main"]].drop(columns=["metric", "value"]).merge(losses, on="run_id")
    found = found.assign(
        metric=FORGETTING + found["text"],
        value=found["loss_after"] - found["loss_before"],
        before=found["loss_before"],
        main=False,
    )
    both = pd.concat([test, found[[*test.columns, "before"]]], ignore_index=True)
    return both.assign(line=lora_lines(both))


def lora_lines(runs: pd.DataFrame) -> pd.Series:
    """For runs of LoRA with one rank their weight types, of which a line over ranks is drawn; "" for all others."""
    ranked = (runs["label"] == "lora") & runs["r"].map(lambda r: isinstance(r, int | float) and r > 0)
    return ("lora " + runs["weight_types"].fillna("")).where(ranked, "")


def tabulate(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of `kit.task_tables.tabulate` with line and r, and of a text's forgetting `before` and
    `zero_p_holm`, of the test that it is 0, corrected for all methods measured on that text."""
    table = task_tables.tabulate(scores)
    keys = tuning.CELL
    table = table.merge(scores.groupby(keys)[["line", "r", "before"]].first(), on=keys, how="left")
    measured_runs = scores[scores["before"].notna()].groupby(keys, sort=False)
    zero = pd.DataFrame([(*key, _p_of_zero(runs)) for key, runs in measured_runs], columns=[*keys, "p"])
    zero["zero_p_holm"] = zero.groupby(TASK, sort=False)["p"].transform(statistics.holm)
    return table.merge(zero.drop(columns="p"), on=keys, how="left")


def _p_of_zero(runs: pd.DataFrame) -> float:
    by_seed = runs.set_index("seed")
    return statistics.paired(by_seed["before"] + by_seed["value"], by_seed["before"]).p


def over_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """For each line of LoRA with two ranks or more its largest minus its smallest, on every text: TASK, line, smallest,
    largest, the fields of `maths.statistics.Paired`, and p_holm, corrected for the texts and lines of a task."""
    rows = []
    for key, line in scores[scores["line"] != ""].groupby([*TASK, "line"], sort=False):
        smallest, largest = line["r"].min(), line["r"].max()
        if smallest < largest and line["metric"].iloc[0].startswith(FORGETTING):
            ends = [line[line["r"] == r].set_index("seed")["value"] for r in (largest, smallest)]
            rows.append((*key, smallest, largest, *statistics.paired(*ends)))
    table = pd.DataFrame(rows, columns=[*TASK, "line", "smallest", "largest", *statistics.Paired._fields])
    return table.assign(p_holm=table.groupby(TASK[:2], sort=False)["p"].transform(statistics.holm))
