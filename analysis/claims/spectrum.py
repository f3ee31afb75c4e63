"""Claims about the spectrum of delta_w, and about full fine-tuning's update beside LoRA's. Replicates are seeds."""

import numpy as np

from analysis.claims.engine import PERCENT, SIGNED, TIMES, Case, Claim, Frames, Judge
from analysis.claims.measures import ids, places, replicates
from analysis.kit.updates import EPSILON, FEW, PAIR, SIDES, TOP

RANKS = "spectrum/ranks.csv"
OVERLAP = "spectrum/overlap.csv"
TRUNCATION = "truncation/truncation.csv"
OVER = "The mean over layers, and over LoRA's ranks and sets of weight types, of each seed."
K = 8


def _q_and_v(label: str) -> Judge:
    """log of q's effective rank less that of v's, by seed; of updates that have more than one direction."""

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for where, task, rows in places(frames.get(RANKS)):
            own = rows[(rows["label"] == label) & (rows["r"] != 1)]
            logs = np.log(own["effective_rank"]).groupby([own["seed"], own["method"], own["weight_type"]]).mean()
            wide = logs.unstack("weight_type").reindex(columns=list(PAIR))
            ratios = (wide[PAIR[0]] - wide[PAIR[1]]).groupby("seed").mean()
            cases += replicates("spectrum", where, task, ratios, runs=ids(own))
        return cases

    return judge


def _intruders(frames: Frames) -> list[Case]:
    """Intruders beyond those of random directions, LoRA's less full fine-tuning's; of weight types that all have."""
    cases = []
    for where, task, rows in places(frames.get(RANKS)):
        both = rows[rows["label"].isin(["lora", "full"])]
        if both["label"].nunique() < 2:
            continue
        shared = set.intersection(*(set(group) for _, group in both.groupby("method")["weight_type"]))
        own = both[both["weight_type"].isin(shared)]
        found, random = (
            own[[f"{name}_{side}_{EPSILON}" for side in SIDES]].mean(axis=1) for name in ("intruders", "random")
        )
        means = (found - random).groupby([own["seed"], own["label"], own["method"]]).mean()
        wide = means.groupby(["seed", "label"]).mean().unstack("label")
        cases += replicates("spectrum", where, task, wide["lora"] - wide["full"], runs=ids(own))
    return cases


def _overlap(frames: Frames) -> list[Case]:
    """phi(k, k) of LoRA's top directions in full fine-tuning's, k = FEW or all that there are, less chance."""
    if not {OVERLAP, RANKS} <= set(frames):
        return []
    about = frames[RANKS][["run_id", "model", "task", "label", "method", "seed"]].drop_duplicates()
    overlap = frames[OVERLAP][["run_id", "side", "k", "phi", "chance_mean"]].merge(about, on="run_id")
    cases = []
    for where, task, rows in places(overlap):
        few = rows[(rows["label"] == "lora") & (rows["side"] == "right") & (rows["k"] <= FEW)]
        few = few[few["k"] == few.groupby("method")["k"].transform("max")]
        beyond = (few["phi"] - few["chance_mean"]).groupby([few["seed"], few["method"]]).mean()
        cases += replicates("spectrum", where, task, beyond.groupby("seed").mean(), runs=ids(few))
    return cases


def _truncation(frames: Frames) -> list[Case]:
    """The share of the way from no update to the whole that is kept at K, in test loss, where it makes it better."""
    cases = []
    for where, task, rows in places(frames.get(TRUNCATION)):
        used = rows[(rows["split"] == "test") & (rows["method"] == "full") & (rows["metric"] == "loss")]
        losses = used.pivot_table("value", "seed", "k")
        if K in losses:
            none, whole = losses.iloc[:, 0], losses.iloc[:, -1]
            kept = ((none - losses[K]) / (none - whole))[whole < none]
            cases += replicates("truncation", where, task, kept, runs=ids(used))
    return cases


def _flatter(key: str, label: str, name: str, detail: str) -> Claim:
    return Claim(
        key=key,
        statement=f"delta_w of q has a higher intrinsic rank than that of v{name}: its spectrum is flatter.",
        source="paper, Section 7.2",
        statistic=f"Effective rank of q's update over that of v's, geometric means{detail}. Replicates are seeds.",
        files=(RANKS,),
        judge=_q_and_v(label),
        low=1,
        margin=1.1,
        scale=TIMES,
    )


CLAIMS = [
    _flatter("q_higher_rank", "lora", " in LoRA", " over layers, ranks above 1 and sets of weight types"),
    _flatter("q_higher_rank_full", "full", " in full fine-tuning", " over layers"),
    Claim(
        key="intruders",
        statement="LoRA brings more intruder dimensions than its singular values alone would, full fine-tuning not.",
        source="guides: arXiv 2410.21228",
        statistic=f"Of the top {TOP} singular vectors of W + delta_w how many have no counterpart in W (best |cosine| "
        f"below {EPSILON}), less as many of an update with the same singular values and random directions; LoRA's less "
        f"full fine-tuning's. {OVER}",
        files=(RANKS,),
        judge=_intruders,
        low=0,
        margin=0.25,
        scale=SIGNED,
    ),
    Claim(
        key="shares_with_full",
        statement="LoRA's top directions are among those of full fine-tuning more than by chance.",
        source="guides to LoRA",
        statistic=f"phi(k, k), k = {FEW} or r if that is smaller, between LoRA's input directions and those of full "
        f"fine-tuning with another seed, less its mean for random directions. {OVER}",
        files=(OVERLAP, RANKS),
        judge=_overlap,
        low=0,
        margin=0.05,
        scale=SIGNED,
    ),
    Claim(
        key="full_is_low_rank",
        statement=f"The update of full fine-tuning is low-rank: cut to rank {K} it keeps 95% of its effect.",
        source="paper, Section 4.1, after Aghajanyan et al. (arXiv 2012.13255)",
        statistic=f"Share of the way from no update of the weights to the whole that is kept at rank {K}, in test "
        "loss; all else is as trained. Replicates are seeds.",
        files=(TRUNCATION,),
        judge=_truncation,
        low=0.95,
        margin=0.05,
        scale=PERCENT,
    ),
]
