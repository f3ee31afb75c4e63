"""Claims about what delta_w amplifies in W: the paper's Section 7.3."""

import pandas as pd

from analysis.claims.engine import PLAIN, TIMES, Case, Claim, Frames, Judge
from analysis.claims.measures import ids, mean, places, ratio
from analysis.studies.amplification.tables import logs

TABLE = "amplification/amplification.csv"
W_VS_DELTA = "w_vs_delta/phi.csv"
OVER_SEEDS = "For each weight type and rank the geometric mean over layers; the interval is over seeds."


def _by_seed(rows: pd.DataFrame, name: str) -> pd.Series:
    """Logarithms of a ratio of `amplification_tables.RATIOS`, by seed the mean over layers."""
    return logs(rows, name).groupby(rows["seed"]).mean()


def _ratio(name: str) -> Judge:
    def judge(frames: Frames) -> list[Case]:
        return [
            ratio("amplification", where, _by_seed(rows, name), "seeds", ids(rows))
            for where, rows in places(frames.get(TABLE), "weight_type", "r")
        ]

    return judge


def _small_over_large(*over: str) -> Judge:
    """The factor, over other ratios if named, at the smallest rank over the same at the largest."""

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for where, rows in places(frames.get(TABLE), "weight_type"):
            small, large = (rows[rows["r"] == r] for r in (rows["r"].min(), rows["r"].max()))
            at_small, at_large = (
                _by_seed(end, "factor") - sum(_by_seed(end, name) for name in over) for end in (small, large)
            )
            factors = (at_small - at_large).dropna()
            if rows["r"].nunique() > 1 and len(factors):
                cases.append(ratio("amplification", where, factors, "seeds", ids(small, large)))
        return cases

    return judge


def _top_of_w(frames: Frames) -> list[Case]:
    """phi between all of delta_w's input directions and the top tenth of W's, at the smallest rank."""
    cases = []
    for where, rows in places(frames.get(W_VS_DELTA), "weight_type"):
        r = rows["r"].min()
        own = rows[(rows["r"] == r) & (rows["j"] == r) & (rows["side"] == "delta_w_right") & (rows["top"] == "True")]
        if len(own):
            cases.append(mean("w_vs_delta", f"{where} r = {r:g}", own.groupby("seed")["phi"].mean(), "seeds", ids(own)))
    return cases


CLAIMS = [
    Claim(
        key="amplifies",
        statement="delta_w amplifies: in its directions it is larger than W is.",
        source="paper, Section 7.3, Table 7",
        statistic=f"Amplification factor, ||delta_w||_F over ||U^T W V||_F with U, V from delta_w. {OVER_SEEDS}",
        files=(TABLE,),
        judge=_ratio("factor"),
        low=1,
        scale=TIMES,
    ),
    Claim(
        key="not_emphasised",
        statement="What delta_w amplifies is not emphasised in W: less than a quarter of what W's own top r directions "
        "hold.",
        source="paper, Section 7.3, Table 7",
        statistic=f"||U^T W V||_F with U, V from delta_w over the same with those from W. {OVER_SEEDS}",
        files=(TABLE,),
        judge=_ratio("of_top"),
        high=0.25,
        scale=TIMES,
    ),
    Claim(
        key="already_in_w",
        statement="What delta_w amplifies is in W already: W is larger there than in random directions.",
        source="paper, Section 7.3, Table 7",
        statistic=f"||U^T W V||_F with U, V from delta_w over the same with random ones. {OVER_SEEDS}",
        files=(TABLE,),
        judge=_ratio("over_random"),
        low=1,
        scale=TIMES,
    ),
    Claim(
        key="small_rank_amplifies_more",
        statement="The amplification factor is larger at a small rank.",
        source="paper, Section 7.3, Table 7, and Section H.4",
        statistic="Factor at the smallest rank over that at the largest, by seed the geometric mean over layers. alpha "
        "is the same at all ranks, so that the size of delta_w depends on alpha / r too. Random directions alone make "
        "the factor fall as 1 / r: see the next claim.",
        files=(TABLE,),
        judge=_small_over_large(),
        low=1,
        scale=TIMES,
    ),
    Claim(
        key="small_rank_beyond_chance",
        statement="The amplification factor is larger at a small rank by more than it is in random directions.",
        source="paper, Table 7 (where it is not: W is 16 times random at r = 4, and 6 times at r = 64)",
        statistic="As in the claim before, with the factor over what it would be with random U and V.",
        files=(TABLE,),
        judge=_small_over_large("random_factor"),
        low=1,
        scale=TIMES,
    ),
    Claim(
        key="not_top_of_w",
        statement="The directions of delta_w are not W's top directions: phi with the top tenth is below 0.2.",
        source="paper, Section H.3, Figure 8",
        statistic="phi between the r input directions of delta_w and the top tenth of W's, at the smallest rank; mean "
        "over layers, interval over seeds. Between random directions it is about 0.1.",
        files=(W_VS_DELTA,),
        judge=_top_of_w,
        high=0.2,
        scale=PLAIN,
    ),
]
