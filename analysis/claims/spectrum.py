"""Claims about the spectrum of delta_w, and about full fine-tuning's update beside LoRA's."""

import pandas as pd

from analysis.claims.engine import PERCENT, SIGNED, Case, Claim, Frames
from analysis.claims.measures import difference, ids, mean, places
from analysis.studies.spectrum.measures import FEW, TOP
from analysis.studies.spectrum.tables import EPSILON, PAIR, intruder_counts

RANKS = "spectrum/ranks.csv"
OVERLAP = "spectrum/overlap.csv"
TRUNCATION = "truncation/truncation.csv"
OVER_SEEDS = "Means over layers; the interval is over seeds."
K = 8


def _q_and_v(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in places(frames.get(RANKS), "method"):
        if (rows["r"] != 1).all():  # one direction has no rank to compare
            q, v = (rows[rows["weight_type"] == weight_type] for weight_type in PAIR)
            ranks = [part.groupby("seed")["effective_rank"].mean() for part in (q, v)]
            cases += difference("spectrum", where, ranks[0], ranks[1], ids(q, v))
    return cases


def _intruders(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in places(frames.get(RANKS)):
        counts = intruder_counts(rows)
        found = {method: cells.set_index("seed")["intruders"] for method, cells in _at_epsilon(counts)}
        runs = {method: ids(cells) for method, cells in rows.groupby("method")}
        for method in rows.loc[rows["label"] == "lora", "method"].unique():
            if "full" in found:
                used = runs[method] + runs["full"]
                cases += difference("spectrum", f"{where} {method}", found[method], found["full"], used)
    return cases


def _at_epsilon(counts: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), cells) for name, cells in counts[counts["epsilon"] == EPSILON].groupby("method")]


def _overlap(frames: Frames) -> list[Case]:
    """phi(k, k) of LoRA's top directions in full fine-tuning's, k = FEW or all that there are, less chance."""
    cases = []
    overlap = None
    if OVERLAP in frames and RANKS in frames:  # what a run is, stands in the ranks
        about = frames[RANKS][["run_id", "model", "task", "label", "method", "seed"]].drop_duplicates()
        overlap = frames[OVERLAP][["run_id", "side", "k", "phi", "chance_high"]].merge(about, on="run_id")
    for where, rows in places(overlap, "method"):
        few = rows[(rows["label"] == "lora") & (rows["side"] == "right") & (rows["k"] <= FEW)]
        few = few[few["k"] == few["k"].max()]
        if len(few):
            beyond = (few["phi"] - few["chance_high"]).groupby(few["seed"]).mean()
            cases.append(mean("spectrum", where, beyond, "seeds", ids(few)))
    return cases


def _truncation(frames: Frames) -> list[Case]:
    """The share of the way from no update to the whole that is kept at K; of runs that the update makes better."""
    cases = []
    for where, rows in places(frames.get(TRUNCATION)):
        test = rows[(rows["split"] == "test") & (rows["method"] == "full")]
        scored = test[test["metric"] != "loss"]
        used = test.assign(value=-test["value"])
        if len(scored):
            used = scored[scored["metric"] == scored["metric"].iloc[0]]
        scores = used.pivot_table("value", "seed", "k")
        if K in scores:
            none, whole = scores.iloc[:, 0], scores.iloc[:, -1]
            kept = ((scores[K] - none) / (whole - none))[whole > none].dropna()
            if len(kept):
                cases.append(mean("truncation", where, kept, "seeds", ids(used)))
    return cases


CLAIMS = [
    Claim(
        key="q_higher_rank",
        statement="delta_w of q has a higher intrinsic rank than that of v: its spectrum is flatter.",
        source="paper, Section 7.2",
        statistic=f"Effective rank of q's update minus that of v's, paired by seed, for LoRA above r = 1 and full "
        f"fine-tuning. {OVER_SEEDS}",
        files=(RANKS,),
        judge=_q_and_v,
        low=0,
        scale=SIGNED,
    ),
    Claim(
        key="intruders",
        statement="LoRA brings intruder dimensions, full fine-tuning fewer.",
        source="guides: arXiv 2410.21228",
        statistic=f"Of the top {TOP} singular vectors of W + delta_w how many have no counterpart in W (best |cosine| "
        f"below {EPSILON}), LoRA's minus full fine-tuning's, paired by seed. {OVER_SEEDS}",
        files=(RANKS,),
        judge=_intruders,
        low=0,
        scale=SIGNED,
    ),
    Claim(
        key="shares_with_full",
        statement="LoRA's top directions are among those of full fine-tuning more than by chance.",
        source="guides to LoRA",
        statistic=f"phi(k, k), k = {FEW} or r if that is smaller, between LoRA's input directions and those of full "
        "fine-tuning with another seed, less the upper end of the interval that holds 95% of random draws. "
        f"{OVER_SEEDS}",
        files=(OVERLAP, RANKS),
        judge=_overlap,
        low=0,
        scale=SIGNED,
    ),
    Claim(
        key="full_is_low_rank",
        statement=f"The update of full fine-tuning is low-rank: cut to rank {K} it keeps 95% of its effect.",
        source="paper, Section 4.1, after Aghajanyan et al. (arXiv 2012.13255)",
        statistic=f"Share of the way from no update of the weights to the whole that is kept at rank {K}, in test "
        "score, or in test loss where no text was written; all else is as trained. The interval is over seeds.",
        files=(TRUNCATION,),
        judge=_truncation,
        low=0.95,
        scale=PERCENT,
    ),
]
