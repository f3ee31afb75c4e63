"""Claims about learning rates, alpha, and where A and B start."""

import math

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import by_task, exact, ids, method, own_runs, per_run, places, replicates, runs_of
from analysis.claims.pairs import POINT
from analysis.claims.scales import PLAIN, SIGNED, TIMES
from analysis.kit import collapses, tables
from analysis.maths import estimates

ENDS = {"smallest": min, "largest": max}


def _spread(end: str) -> Judge:
    """By seed: how far apart the alphas' scores are with the rate tuned for each, less the same with one rate; at the
    smallest or the largest rank."""

    def judge(frames: Frames) -> list[Case]:
        if not {"alpha/runs.csv", "alpha/table.csv"} <= set(frames):
            return []
        keys = ["model", "task", "r", "alpha", "lr"]
        runs, kinds = per_run(frames["alpha/runs.csv"]), frames["alpha/table.csv"][[*keys, "kind"]]
        runs, cases = runs[~collapses.lost(runs)], []
        for where, task, whole in places(runs.round({"lr": 9}).merge(kinds.round({"lr": 9}), on=keys)):
            rows = whole[whole["r"] == ENDS[end](whole["r"])]
            both = rows[rows.groupby("alpha")["kind"].transform("nunique") == 2]
            scores = both.pivot_table("value", ["kind", "seed"], "alpha").dropna()
            spreads = scores.max(axis=1) - scores.min(axis=1)
            if {"fixed", "tuned"} <= set(both["kind"]):
                place = f"{where} r = {rows['r'].iloc[0]:g}"
                cases += replicates("alpha", place, task, spreads["tuned"] - spreads["fixed"], runs=ids(both))
        return cases

    return judge


def _slope(frames: Frames) -> list[Case]:
    """By tuning seed: the slope of log best rate over log alpha / r by least squares, the mean over ranks."""
    if "alpha/runs.csv" not in frames:
        return []
    tried = tables.in_role(frames["alpha/runs.csv"], "tuning")
    tried = tried[(tried["split"] == "validation") & (tried["metric"] != "loss")]
    cases = []
    for where, task, rows in places(tried):
        best = rows.loc[rows.groupby(["seed", "r", "alpha"])["value"].idxmax()]
        slopes = {}
        for key, own in best.groupby(["seed", "r"]):
            if own["alpha"].nunique() > 1:
                slopes[key] = float(np.polyfit(np.log(own["alpha"] / own["r"]), np.log(own["lr"]), 1)[0])
        if slopes:
            by_seed = pd.Series(slopes).groupby(level=0).mean()
            cases += replicates("alpha", where, task, by_seed, "tuning seeds", ids(rows))
    return cases


def _both_zero(frames: Frames) -> list[Case]:
    cases = []
    for where, task, rows in places(frames.get("init/table.csv"), "init"):
        if rows["init"].iloc[0] == "both_zero":
            runs = ids(own_runs(frames, "init", rows.assign(label="both_zero")))
            cases.append(exact("init", where, task, float(rows["largest_entry"].max()), "runs", runs))
    return cases


def _rates(frames: Frames) -> list[Case]:
    """LoRA's rate over full fine-tuning's, a ratio a model and task, from the first study that has tuned both."""
    found: dict[str, float] = {}
    studies, used = [], []
    for study, where, rows in by_task(frames):
        ours, theirs = (method(rows[rows["tuned"]], label) for label in ("lora", "full"))
        if len(ours) and len(theirs) and where not in found:
            found[where] = ours["lr"].iloc[0] / theirs["lr"].iloc[0]
            studies.append(study)
            used += [ours, theirs]
    if not found:
        return []
    each = ", ".join(f"{where} {value:.3g}" for where, value in found.items())
    logs = estimates.mean([math.log(value) for value in found.values()])
    return [Case(", ".join(dict.fromkeys(studies)), f"all tasks ({each})", "all", logs, "tasks", ids(*used))]


def _alpha_spread(end: str) -> Claim:
    return Claim(
        f"alpha_spread_{end}",
        f"alpha is like a learning rate, at the {end} rank: with the rate tuned for each, it matters less.",
        "paper, Section 4.1",
        "Best minus worst alpha / r in test score, with tuned rates less with one rate, paired by seed.",
        ("alpha/runs.csv", "alpha/table.csv"),
        _spread(end),
        margin=2 * POINT,
        high=0,
    )


CLAIMS = [
    *(_alpha_spread(end) for end in ENDS),
    Claim(
        "alpha_slope", "alpha is like a learning rate: the larger alpha / r, the smaller the best learning rate.",
        "paper, Section 4.1",
        "Slope of log best rate over log alpha / r, by least squares; the mean over ranks for each seed that "
        "rates were tuned with.", ("alpha/runs.csv",), _slope, margin=0.5, high=0, scale=SIGNED,
    ),
    Claim(
        "both_zero", "With A = B = 0 LoRA does not train.",
        "paper, Section 4.1 (which has B = 0 alone); guides to LoRA",
        "Largest entry of A and B after training, over all runs.", ("init/table.csv", "init/runs.csv"), _both_zero,
        margin=0, low=0, high=0, scale=PLAIN,
    ),
    Claim(
        "ten_times_the_rate", "LoRA's best learning rate is about 10 times that of full fine-tuning: 3 to 30 times.",
        "guides: LoRA Without Regret (Schulman et al., 2025)",
        "LoRA's rate over full fine-tuning's, each chosen on validation data; geometric mean over models and "
        "tasks, which are the replicates. No rate is known better than to a step of its grid.",
        runs_of("compare_methods", "table3", "table4", "scaling", "memory_methods"), _rates, margin=2, low=3, high=30,
        scale=TIMES._replace(digits=1),
    ),
]  # fmt: skip
