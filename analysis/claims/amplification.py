"""Claims about what delta_w amplifies in W: the paper's Section 7.3. Replicates are seeds; layers, weight types and,
where a claim is not about them, ranks are averaged within a seed."""

import math
from collections.abc import Callable

import pandas as pd

from analysis.claims.engine import Claim, Judge
from analysis.claims.measures import Measured, ids, on_each
from analysis.claims.scales import PERCENT, SIGNED, TIMES

TABLE = "amplification/amplification.csv"
W_VS_DELTA = "w_vs_delta/phi.csv"
TOP_SHARE = 0.1  # of W's directions, that are its top ones in w_vs_delta
OVER = "The mean over layers and weight types (of ratios the geometric one) of each seed."
ENDS: dict[str, Callable[[pd.Series], float]] = {"smallest": min, "largest": max}

Measure = Callable[[pd.DataFrame], pd.Series]


def _log(numerator: str, denominator: str) -> Measure:
    return lambda rows: (rows[numerator] / rows[denominator]).map(math.log)


FACTOR, RANDOM_FACTOR = (_log("norm_delta_w", name) for name in ("projection_delta_w", "projection_random"))
OVER_RANDOM = _log("projection_delta_w", "projection_random")


def _of_top(rows: pd.DataFrame) -> pd.Series:
    """Of what W's own top r directions hold beyond random ones, the share that delta_w's hold."""
    beyond, top = (rows[name] - rows["projection_random"] for name in ("projection_delta_w", "projection_w"))
    return beyond / top


def _by_seed(rows: pd.DataFrame, measure: Measure) -> pd.Series:
    """By seed the mean over layers, then over weight types and ranks."""
    values = rows.assign(measured=measure(rows))
    means = values.groupby(["seed", "weight_type", "r"])["measured"].mean()
    return means.groupby("seed").mean()


def _of(measure: Measure, end: str = "") -> Judge:
    """A measure, at the study's smallest or largest rank, or over all of them."""

    def measured(rows: pd.DataFrame) -> Measured:
        used = rows[rows["r"] == ENDS[end](rows["r"])] if end else rows
        return Measured(_by_seed(used, measure), ids(used), f"r = {used['r'].iloc[0]:g}" if end else "")

    return on_each(TABLE, measured)


def _small_over_large(rows: pd.DataFrame) -> Measured | None:
    """The factor over that of random directions, at the smallest rank over the same at the largest."""
    if rows["r"].nunique() < 2:
        return None
    small, large = (rows[rows["r"] == end(rows["r"])] for end in ENDS.values())
    at_small, at_large = (_by_seed(end, FACTOR) - _by_seed(end, RANDOM_FACTOR) for end in (small, large))
    return Measured(at_small - at_large, ids(small, large))


def _top_of_w(rows: pd.DataFrame) -> Measured:
    """phi between all of delta_w's input directions and the top tenth of W's, at the smallest rank, less chance."""
    r = rows["r"].min()
    own = rows[(rows["r"] == r) & (rows["j"] == r) & (rows["side"] == "delta_w_right") & (rows["top"] == "True")]
    means = own.groupby(["seed", "weight_type"])["phi"].mean().groupby("seed").mean()
    return Measured(means - TOP_SHARE, ids(own), f"r = {r:g}")


def _amplifies(end: str, by_chance: str) -> Claim:
    return Claim(
        f"amplifies_{end}",
        f"At the {end} rank delta_w amplifies: in its directions it is larger than W is.",
        "paper, Section 7.3, Table 7",
        f"Amplification factor, ||delta_w||_F over ||U^T W V||_F with U, V from delta_w. {by_chance} {OVER}",
        (TABLE,),
        _of(FACTOR, end),
        margin=1.5,
        low=1,
        scale=TIMES,
    )


CLAIMS = [
    _amplifies("smallest", "It is a matter of size: for random directions it is about as large (see the next claims)."),
    _amplifies("largest", "alpha is the same at all ranks, so that delta_w is small at a large one."),
    Claim(
        "not_emphasised",
        "What delta_w amplifies is hardly emphasised in W: beyond chance, less than a tenth of what W's own "
        "top directions are.", "paper, Section 7.3, Table 7 (1% at r = 4, 4% at r = 64)",
        "||U^T W V||_F with U, V from delta_w less the same with random ones, over the same of W's own top r "
        f"directions less that with random ones: random directions have 0, W's own 100%. All ranks. {OVER}", (TABLE,),
        _of(_of_top), margin=0.05, high=0.1, scale=PERCENT,
    ),
    Claim(
        "already_in_w", "What delta_w amplifies is in W already: W is larger there than in random directions.",
        "paper, Section 7.3, Table 7",
        f"||U^T W V||_F with U, V from delta_w over the same with random ones. All ranks. {OVER}", (TABLE,),
        _of(OVER_RANDOM), margin=1.1, low=1, scale=TIMES,
    ),
    Claim(
        "twice_random",
        "What delta_w amplifies is special to W: W is at least twice as large there as in random directions.",
        "paper, Section 7.3, Table 7 (16 times at r = 4, 6 times at r = 64)", "As in the claim before.", (TABLE,),
        _of(OVER_RANDOM), margin=1.25, low=2, scale=TIMES,
    ),
    Claim(
        "small_rank_beyond_chance",
        "The amplification factor is larger at a small rank by more than it is in random directions.",
        "paper, Section 7.3, Table 7, and Section H.4 (there it is not: W is 16 times random at r = 4, and 6 "
        "times at r = 64)",
        "Factor at the smallest rank over that at the largest, each over what it would be with random U and "
        f"V: these alone make it fall as 1 / r. {OVER}",
        (TABLE,), on_each(TABLE, _small_over_large), margin=1.25, low=1, scale=TIMES,
    ),
    Claim(
        "top_of_w", "The directions of delta_w are among W's top directions more than random ones are.",
        "paper, Section H.3, Figure 8 (where they are not)",
        "phi between the r input directions of delta_w and the top tenth of W's, at the smallest rank, less "
        f"{TOP_SHARE}, which random directions have. {OVER}",
        (W_VS_DELTA,), on_each(W_VS_DELTA, _top_of_w), margin=0.05, low=0,
        scale=SIGNED._replace(digits=3),
    ),
]  # fmt: skip
