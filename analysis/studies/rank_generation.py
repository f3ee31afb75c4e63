"""LoRA's rank where text is generated (E2E): validation loss and test metrics over r, the paper's Table 18."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from analysis.kit import (
    cells,
    generation,
    grids,
    language_runs,
    marks,
    method_figures,
    metrics,
    naming,
    pages,
    samples,
    tables,
    tuning,
)
from analysis.kit.compare import METHOD
from analysis.kit.data import Data
from analysis.kit.metrics import Metric
from analysis.kit.sentences import caution
from analysis.kit.study import Study, arranged
from lora.config import InputError

PAPER_MODEL = "gpt2-medium"
REFERENCE_RANK = 4  # the best in the paper, and where the learning rate is tuned
UNITS = {"val_loss": 1, "bleu": 100, "nist": 1, "meteor_stem": 1, "rouge_l": 1, "cider": 1}  # of the paper's table
READING = f"""\
Ours are means over seeds ± half-width of the 95% Student-t interval (number of seeds); one seed gives no interval. An
arrow marks metrics of which lower is better. The paper's rows are its Table 18, {PAPER_MODEL} trained on all of E2E:
compare how a metric moves with r, not its level. alpha is the same for all r, so that the update's factor alpha / r
falls as r grows, and one learning rate serves all: a rank far from the one it was tuned at may do better at a rate of
its own.
{generation.METEOR}
Spearman's rho says how alike two rows of means are in order; that of few and noisy means may be large by chance.
Differences are paired by seed, ± half-width of their own 95% interval;
{generation.TEST}"""
CHOSEN = "Chosen on validation data at one rank and one seed, for every rank."


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs, with `line`: the method without its rank. Raises InputError where a run of the study has no rank."""
    runs = arranged(study_dir, runs_dir)
    own = tables.in_role(runs, "study")
    for run in own[~own["r"].map(lambda r: isinstance(r, int | float) and r > 0)].to_dict("records"):
        raise InputError(
            f"{study_dir / 'sweep.jsonl'} lists a run without one rank, {naming.title(run['label'], run['settings'])}; "
            f"delete it, `{tables.make_command(study_dir)}` lists ranks"
        )
    rest = runs["settings"].map(lambda settings: re.sub(r"^r=\d+(, )?", "", settings))
    return runs.assign(line=[naming.title(*key) for key in zip(runs["label"], rest, strict=True)])


def reference_rank(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The row that others are compared with, r = REFERENCE_RANK or else the smallest rank, as its name and its key."""
    ranks = rows["settings"].str.extract(r"^r=(\d+)", expand=False).astype(int)
    place = (ranks != REFERENCE_RANK).astype(int).sort_values(kind="stable").index[0]
    return {f"r={ranks[place]}": (rows["label"][place], rows["settings"][place])}


def paper() -> pd.DataFrame:
    """The paper's Table 18: model, task, r and the metrics, in the unit stored."""
    table = cells.paper("table18_rank_gpt2").rename(columns={"meteor": "meteor_stem"})
    columns = {name: table[name] / unit for name, unit in UNITS.items()}
    return table[["r"]].assign(model=PAPER_MODEL, task="e2e", **columns)


GENERATED = generation.Generated(paper, list(UNITS), reference_rank, also=["line", "r"])


def findings(data: Data) -> list[str]:
    """What the ranks of a task come to, counted from their numbers, as markdown list items."""
    ours, theirs = GENERATED.ours(data), GENERATED.theirs(data).set_index("r")
    ranked = ours.astype({"r": int}).groupby("r").mean(numeric_only=True)
    lines = [f"- {caution(ours['n'], len(ours) - 1)}"]
    for name in data.once(GENERATED.long)["metric"].unique():
        unit = metrics.of(name)
        low, high = (f"{unit.scale * end:.{unit.digits}f}" for end in (ranked[name].min(), ranked[name].max()))
        half = unit.scale * ranked[f"{name}_interval"].mean()
        beside = "" if pd.isna(half) else f", the mean half-width of an interval {half:.{unit.digits}f}"
        line = f"- {unit.title}: best at r = {_best(ranked[name], unit)}; from {low} to {high}{beside}."
        if name in theirs:
            line += f" The paper's is best at r = {_best(theirs[name], unit)}{_agreement(ranked[name], theirs[name])}."
        lines.append(line)
    return [*lines, *GENERATED.verdicts(data)]


def _best(means: pd.Series, metric: Metric) -> str:
    best = means.min() if metric.lower else means.max()
    return ", ".join(map(str, means.index[means == best]))


def _agreement(ours: pd.Series, paper: pd.Series) -> str:
    both = ours.dropna().index.intersection(paper.dropna().index)
    if len(both) < 4 or ours[both].nunique() == 1:
        return ""
    rho = spearmanr(ours[both], paper[both]).statistic
    return f"; over the {len(both)} ranks of both Spearman's rho of the two is {rho:.2f}"


def drawn(data: Data) -> pd.DataFrame:
    """Our means over r, and in each panel the paper's line, shifted to agree with ours on average over the ranks of
    both."""
    rows = data.once(GENERATED.long).assign(shift=float("nan"))
    parts, theirs = [rows], GENERATED.theirs(data).set_index("r")
    for key, means in rows.groupby(pages.TASK, sort=False):
        place: dict[str, Any] = dict(zip(pages.TASK, key, strict=True))
        if place["metric"] in theirs:
            numbers = theirs[place["metric"]]
            shift = (numbers - means.groupby("r")["mean"].mean()).mean()
            line = pd.DataFrame(
                {"r": numbers.index, "mean": numbers.to_numpy() - shift, "line": f"paper, {PAPER_MODEL}"}
            )
            parts.append(line.assign(**place, shift=shift))
    return pd.concat(parts, ignore_index=True).astype({"r": int})


STUDY = Study(
    runs=load,
    scores=generation.measured,
    cell=tuning.CELL,
    one_rate=True,
    tables={
        "table.csv": lambda data: GENERATED.table(data).drop(columns="share"),
        "differences.csv": GENERATED.differences,
        "learning_rates.csv": tuning.tried,
    },
    page=[
        "# LoRA's rank on generated text (the paper's Table 18)",
        READING,
        pages.sections(
            "## {task} ({model})",
            pages.lines(language_runs.inputs, findings),
            pages.table(
                lambda data: GENERATED.quality(
                    data,
                    {
                        "method": lambda rows: rows["line"],
                        "r": lambda rows: rows["r"].astype(int),
                        "parameters": lambda rows: rows["trainable_params"].map("{:,}".format, na_action="ignore"),
                        "lr": lambda rows: rows["lr"].map("{:g}".format, na_action="ignore"),
                    },
                )
            ),
            GENERATED.minus,
            by=generation.TASK,
            where={"source": "ours"},
        ),
        pages.under("## Learning rate", grids.choices([*generation.TASK, *METHOD], CHOSEN)),
        pages.failed_runs,
    ],
    figures={
        "rank_generation.png": marks.Lines(x="r", line="line", label="rank r", legend="", of=drawn),
        "learning_rates.png": method_figures.rates,
    },
    more=[samples.of],
)
