"""Claims about learning rates, alpha, and where A and B start."""

import math

from analysis.claims.engine import PLAIN, SIGNED, TIMES, Case, Claim, Frames
from analysis.claims.measures import by_task, difference, ids, method, own_runs, per_run, places, ratio, runs_of


def _spread(frames: Frames) -> list[Case]:
    """By seed: how far apart the alphas' scores are with the rate tuned for each, less the same with one rate."""
    if not {"alpha/runs.csv", "alpha/table.csv"} <= set(frames):
        return []
    keys = ["model", "task", "r", "alpha", "lr"]
    runs, kinds = per_run(frames["alpha/runs.csv"]), frames["alpha/table.csv"][[*keys, "kind"]]
    cases = []
    for where, rows in places(runs.round({"lr": 9}).merge(kinds.round({"lr": 9}), on=keys), "r"):
        both = rows.groupby("alpha")["kind"].transform("nunique") == 2
        scores = rows[both].pivot_table("value", ["kind", "seed"], "alpha").dropna()
        spreads = scores.max(axis=1) - scores.min(axis=1)
        if {"fixed", "tuned"} <= set(rows["kind"][both]):
            cases += difference("alpha", where, spreads["tuned"], spreads["fixed"], ids(rows[both]))
    return cases


def _slope(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in places(frames.get("alpha/claim.csv"), "r"):
        row, runs = rows.iloc[0], ids(own_runs(frames, "alpha", rows))
        half = row["slope_scatter"] + row["slope_grid"]
        ends = row["slope"] - half, row["slope"] + half
        cases.append(Case("alpha", where, row["slope"], *ends, int(row["compared"]), "alphas", runs))
    return cases


def _both_zero(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in places(frames.get("init/table.csv"), "init"):
        if rows["init"].iloc[0] == "both_zero":
            largest, n = rows["largest_entry"].max(), int(rows["n"].min())
            runs = ids(own_runs(frames, "init", rows.assign(label="both_zero")))
            cases.append(Case("init", where, largest, largest, largest, n, "seeds", runs))
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
    logs = [math.log(value) for value in found.values()]
    return [ratio(", ".join(dict.fromkeys(studies)), f"all tasks ({each})", logs, "tasks", ids(*used))]


CLAIMS = [
    Claim(
        key="alpha_spread",
        statement="alpha is like a learning rate: with the rate tuned for each, alpha matters less than with one rate.",
        source="paper, Section 4.1",
        statistic="Best minus worst alpha / r in test score, with tuned rates less with one rate, paired by seed.",
        files=("alpha/runs.csv", "alpha/table.csv"),
        judge=_spread,
        high=0,
    ),
    Claim(
        key="alpha_slope",
        statement="alpha is like a learning rate: the larger alpha / r, the smaller the best learning rate.",
        source="paper, Section 4.1",
        statistic="Slope of log best rate over log alpha / r; the interval is widened by what half a step of the grid "
        "of rates can do.",
        files=("alpha/claim.csv", "alpha/runs.csv"),
        judge=_slope,
        high=0,
        scale=SIGNED,
    ),
    Claim(
        key="both_zero",
        statement="With A = B = 0 LoRA does not train.",
        source="paper, Section 4.1 (which has B = 0 alone); guides to LoRA",
        statistic="Largest entry of A and B after training, over all runs.",
        files=("init/table.csv", "init/runs.csv"),
        judge=_both_zero,
        low=0,
        high=0,
        scale=PLAIN,
    ),
    Claim(
        key="ten_times_the_rate",
        statement="LoRA's best learning rate is about 10 times that of full fine-tuning: 3 to 30 times.",
        source="guides: LoRA Without Regret (Schulman et al., 2025)",
        statistic="LoRA's rate over full fine-tuning's, each chosen on validation data with one seed; geometric mean "
        "over models and tasks.",
        files=runs_of("compare_methods", "table3", "table4", "scaling"),
        judge=_rates,
        low=3,
        high=30,
        scale=TIMES._replace(digits=1),
    ),
]
