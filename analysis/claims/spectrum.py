"""Claims about the spectrum of delta_w, and about full fine-tuning's update beside LoRA's. Replicates are seeds."""

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import Measured, ids, on_each, places, replicates
from analysis.claims.scales import PERCENT, SIGNED, TIMES
from analysis.kit.updates import EPSILON, FEW, PAIR, SIDES, TOP

RANKS = "spectrum/ranks.csv"
OVERLAP = "spectrum/overlap.csv"
TRUNCATION = "truncation/truncation.csv"
OVER = "The mean over layers, and over LoRA's ranks and sets of weight types, of each seed."
K = 8


def _q_and_v(label: str) -> Judge:
    """log of q's effective rank less that of v's, by seed; of updates that have more than one direction."""

    def measured(rows: pd.DataFrame) -> Measured:
        own = rows[(rows["label"] == label) & (rows["r"] != 1)]
        logs = np.log(own["effective_rank"]).groupby([own["seed"], own["method"], own["weight_type"]]).mean()
        wide = logs.unstack("weight_type").reindex(columns=list(PAIR))
        return Measured((wide[PAIR[0]] - wide[PAIR[1]]).groupby("seed").mean(), ids(own))

    return on_each(RANKS, measured)


def _intruders(rows: pd.DataFrame) -> Measured | None:
    """Intruders beyond those of random directions, LoRA's less full fine-tuning's; of weight types that all have."""
    both = rows[rows["label"].isin(["lora", "full"])]
    if both["label"].nunique() < 2:
        return None
    shared = set.intersection(*(set(group) for _, group in both.groupby("method")["weight_type"]))
    own = both[both["weight_type"].isin(shared)]
    found, random = (
        own[[f"{name}_{side}_{EPSILON}" for side in SIDES]].mean(axis=1) for name in ("intruders", "random")
    )
    means = (found - random).groupby([own["seed"], own["label"], own["method"]]).mean()
    wide = means.groupby(["seed", "label"]).mean().unstack("label")
    return Measured(wide["lora"] - wide["full"], ids(own))


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


def _truncation(rows: pd.DataFrame) -> Measured | None:
    """The share of the way from no update to the whole that is kept at K, in test loss, where it makes it better."""
    used = rows[(rows["split"] == "test") & (rows["method"] == "full") & (rows["metric"] == "loss")]
    losses = used.pivot_table("value", "seed", "k")
    if K not in losses:
        return None
    none, whole = losses.iloc[:, 0], losses.iloc[:, -1]
    return Measured(((none - losses[K]) / (none - whole))[whole < none], ids(used))


def _flatter(key: str, label: str, name: str, detail: str) -> Claim:
    return Claim(
        key,
        f"delta_w of q has a higher intrinsic rank than that of v{name}: its spectrum is flatter.",
        "paper, Section 7.2",
        f"Effective rank of q's update over that of v's, geometric means{detail}. Replicates are seeds.",
        (RANKS,),
        _q_and_v(label),
        margin=1.1,
        low=1,
        scale=TIMES,
    )


CLAIMS = [
    _flatter("q_higher_rank", "lora", " in LoRA", " over layers, ranks above 1 and sets of weight types"),
    _flatter("q_higher_rank_full", "full", " in full fine-tuning", " over layers"),
    Claim(
        "intruders", "LoRA brings more intruder dimensions than its singular values alone would, full fine-tuning not.",
        "guides: arXiv 2410.21228",
        f"Of the top {TOP} singular vectors of W + delta_w how many have no counterpart in W (best |cosine| "
        f"below {EPSILON}), less as many of an update with the same singular values and random directions; LoRA's less "
        f"full fine-tuning's. {OVER}", (RANKS,), on_each(RANKS, _intruders), margin=0.25, low=0, scale=SIGNED,
    ),
    Claim(
        "shares_with_full", "LoRA's top directions are among those of full fine-tuning more than by chance.",
        "guides to LoRA",
        f"phi(k, k), k = {FEW} or r if that is smaller, between LoRA's input directions and those of full "
        f"fine-tuning with another seed, less its mean for random directions. {OVER}", (OVERLAP, RANKS), _overlap,
        margin=0.05, low=0, scale=SIGNED,
    ),
    Claim(
        "full_is_low_rank", f"The update of full fine-tuning is low-rank: cut to rank {K} it keeps 95% of its effect.",
        "paper, Section 4.1, after Aghajanyan et al. (arXiv 2012.13255)",
        f"Share of the way from no update of the weights to the whole that is kept at rank {K}, in test "
        "loss; all else is as trained. Replicates are seeds.",
        (TRUNCATION,), on_each(TRUNCATION, _truncation), margin=0.05, low=0.95, scale=PERCENT,
    ),
]  # fmt: skip
