"""LoRA on base weights in 16, 8, 4 and 2 bits (QLoRA), and LoftQ's start: quality, memory, and the untrained base."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import cells, marks, method_tables, metrics, pages, tuning
from analysis.kit.compare import METHOD, minus_texts
from analysis.kit.data import Data
from analysis.kit.pages import TASK
from analysis.kit.sentences import caution, listed, told
from analysis.kit.study import Study
from analysis.maths import statistics
from analysis.studies.qlora import bases
from analysis.studies.qlora.bases import KEYS, MEMORY, NONE, QUANTIZATIONS
from experiments.measure.schemas import QUANTIZED_BASE, QUANTIZED_WEIGHTS

PLAIN = "lora"  # the label of what LoftQ is compared with
ABOUT = {"quantization": "first", "start": "first", "r": "first", **method_tables.ABOUT, MEMORY: "mean"}
READING = """\
The base weights are those of the linear layers of the pretrained body; all else keeps its precision. Bits and bytes are
as the libraries store them, with scales and tables. The error of a weight is ||W − W_q|| / ||W||, the mean over all;
with LoftQ, of its Q + s B A before training. Perplexity is that of the untrained base on held-out text; an encoder has
none: its hidden error is that of its last hidden states there, ||H − H_q|| / ||H||. Scores are test scores after
training: mean ± half-width of the 95% Student-t interval (number of seeds); one seed gives no interval and no test. The
loss is lower where it is better. Differences are paired by seed, ± half-width of their own 95% interval; p is of the
paired t-test, by Holm's method corrected for all that is compared with one reference in one metric, and `*` marks
p < 0.05. Seeds vary the start and the order of training alone. LoRA trains and scores on the quantised weights; text is
written with LoRA merged into the de-quantised ones. Memory is what training took beyond what the process held before,
as it was measured: on a CPU with the full weights that are loaded first, and with libraries, so that it says little of
quantisation; the bytes of the model do."""
TUNED = """\
Each quantisation has its own learning rate, the best on validation data with the first seed, from as many tries."""
UNTUNED = "No learning rate was tuned in this study: every run has the one given here."


def scored(final: pd.DataFrame) -> pd.DataFrame:
    """The test scores of a task's main metric, and its test loss."""
    return final[(final["split"] == "test") & (final["main"] | (final["metric"] == "loss"))]


def table(data: Data) -> pd.DataFrame:
    """A row for each of CELL, from many bits to few: mean, interval, n, ABOUT, the columns of `bases`, and two paired
    comparisons with the fields of `maths.statistics.Paired` and p_holm, corrected for those of their kind with one
    model, task and metric.

    none_…: minus LoRA on weights that are not quantised. plain_…: LoftQ minus the plain start with the same rank and
    quantisation, with plain_closed, the share of the plain start's loss of quality that LoftQ makes good, where the 95%
    interval of that loss, not corrected, leaves out zero.
    """
    exact = set(data.scores.loc[data.scores["quantization"] == NONE, "settings"])
    ranks = data.scores.set_index("settings")["r"].to_dict()

    def not_quantised(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
        found = sorted(rows.loc[rows["settings"].isin(exact), "settings"], key=lambda settings: ranks[settings])
        return {NONE: (PLAIN, found[0])} if found else {}

    found = method_tables.tabulate(data.scores, (), not_quantised, ABOUT)
    found = found.merge(plain(data.scores), on=tuning.CELL, how="left").merge(data["bases.csv"], on=KEYS, how="left")
    places = {"place": found["quantization"].map(QUANTIZATIONS.index), "loftq": found["label"] != PLAIN}
    by = ["model", "task", "main", "place", "r", "loftq"]
    order = found.assign(**places).sort_values(by, ascending=[True, True, False, True, True, True], ignore_index=True)
    return order.assign(plain_closed=closed(order)).drop(columns=[*places])


def plain(scores: pd.DataFrame) -> pd.DataFrame:
    """LoftQ minus the plain start with the same settings: CELL, and plain_<field> of Paired and p_holm."""
    groups = {key: runs.set_index("seed")["value"] for key, runs in scores.groupby(tuning.CELL, sort=False)}
    rows = [
        (*place, label, settings, *statistics.paired(values, groups[*place, PLAIN, settings]))
        for (*place, label, settings), values in groups.items()
        if label != PLAIN and (*place, PLAIN, settings) in groups
    ]
    found = pd.DataFrame(rows, columns=[*tuning.CELL, *statistics.Paired._fields])
    p = found.astype({"p": float}).groupby(TASK, sort=False)["p"].transform(statistics.holm)
    return found.assign(p_holm=p).set_index(tuning.CELL).add_prefix("plain_").reset_index()


def closed(rows: pd.DataFrame) -> pd.Series:
    """The share of the plain start's loss of quality that LoftQ makes good; NaN where its interval holds no loss."""
    start = rows[rows["label"] == PLAIN].rename(columns={"mean": "plain_mean"})
    keys, fields = [*TASK, "settings"], [f"{NONE}_difference", f"{NONE}_interval"]
    for field in fields:
        start[field] = start.get(field, np.nan)
    beside = rows[[*keys, "mean", "label"]].merge(start[[*keys, "plain_mean", *fields]], on=keys, how="left")
    loss, interval = (beside[field].astype(float) for field in fields)
    worse = (loss > 0) == beside["metric"].map(lambda metric: metrics.of(metric).lower)
    known = worse & (loss.abs() > interval) & (beside["label"] != PLAIN)
    return ((beside["plain_mean"] - beside["mean"]) / loss).where(known).set_axis(rows.index)


def findings(data: Data) -> list[str]:
    """What the tests and means of a task say, as markdown list items."""
    rows = data["table.csv"]
    main = rows[rows["main"]]
    lines = [f"- {caution(main['n'], int((main['quantization'] != NONE).sum()))}"]
    for metric, own in rows.groupby("metric", sort=False):
        unit = metrics.of(str(metric))
        parts = told(own, f"{NONE}_", unit.lower) if f"{NONE}_pairs" in own else None
        if parts and parts.tests:
            better, worse, neither = map(_listed, parts)
            said = f"no quantisation, {parts.tests} corrected tests: worse {worse}; better {better}; "
            said += f"not told apart {neither}."
        else:
            said = "weights that are not quantised: no test, which takes two seeds that differ."
        lines.append(f"- {metric}, against {said}")
        for row in own[own["plain_pairs"].notna()].to_dict("records"):
            fields = row["plain_difference"], row["plain_interval"], row["plain_p_holm"]
            gap = round(row["plain_closed"], 2) + 0.0  # no -0.0
            share = "" if pd.isna(gap) else f", {gap:.0%} of the gap of the means"
            text = statistics.difference_text(*fields, scale=unit.scale, digits=unit.digits)
            lines.append(f"- {metric}, LoftQ's start in place of the plain one, r = {row['r']:g}: {text}{share}.")
    return lines


def _listed(rows: pd.DataFrame) -> str:
    return listed(f"{bases.name(row)} (r = {row['r']:g})" for row in rows.to_dict("records"))


def quality(data: Data) -> pd.DataFrame:
    """A row for each quantisation, start and rank: what it reaches in each metric, and minus what is not quantised."""
    found = data["table.csv"]
    rows = found[found["main"]]
    columns: dict[str, Any] = {
        "base weights": [bases.name(row) for row in rows.to_dict("records")],
        "bits": rows["bits"].map("{:.2f}".format),
        "r": rows["r"].map("{:g}".format),
        "lr": rows["lr"].map("{:g}".format),
    }
    for metric, own in found.groupby("metric", sort=False):
        columns |= cells.across(rows, own, "metric", METHOD, head="test {}")
        columns[f"{metric}, minus not quantised"] = cells.looked_up(own, minus_texts(own, NONE), rows, METHOD)
    columns["training memory (MB)"] = bases.megabytes(rows[MEMORY])
    return pd.DataFrame(columns | {"training (s)": rows["train_seconds"].map("{:.0f}".format)})


def drawn(data: Data) -> pd.DataFrame:
    """The means of the main metric against bits, a line for each start and rank; and of the untrained bases their loss,
    or hidden error, on each text."""
    rows = data["table.csv"]
    starts = rows["label"].map({PLAIN: "LoRA"}).fillna("LoftQ")
    trained = rows.assign(line=starts + ", r = " + rows["r"].map("{:g}".format))[rows["main"]]
    measured = data["bases.csv"].melt([*KEYS, "bits"], var_name="measure", value_name="mean").dropna(subset="mean")
    found = measured["measure"].str.extract("^(?P<metric>loss|hidden_error)_(?P<text>.*)$")
    loftq = measured["start"].map(lambda start: ", LoftQ" if start else "")
    before = measured.assign(metric="untrained_" + found["metric"], task="held-out text", line=found["text"] + loftq)
    both = pd.concat([trained, before.dropna(subset="metric")], ignore_index=True)
    return both.sort_values("model", kind="stable")


def single(data: Data) -> pd.DataFrame:
    """The runs of the main metric, with their bits and line."""
    return data.scores.merge(drawn(data)[[*tuning.CELL, "bits", "line"]], on=tuning.CELL)


STUDY = Study(
    runs=bases.load,
    failed=bases.load_failed,
    columns=["quantization"],
    scores=scored,
    cell=tuning.CELL,
    one_rate=True,
    reads=(QUANTIZED_BASE.file, QUANTIZED_WEIGHTS.file),
    tables={"bases.csv": bases.bases, "table.csv": table, "learning_rates.csv": tuning.tried},
    page=[
        "# LoRA on quantised base weights",
        READING,
        lambda data: UNTUNED if data.rates.empty else TUNED,
        pages.sections("## {task} ({model})", findings, pages.table(quality), by=TASK[:2]),
        "## Before training",
        pages.sections("{model}:", pages.table(bases.untrained), bases.by_type, by=["model"]),
        pages.failed_runs,
    ],
    figures={
        "qlora.png": marks.Lines(
            x="bits", line="line", label="bits of a base weight", legend="", of=drawn, runs=single, columns=2
        )
    },
)
