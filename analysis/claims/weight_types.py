"""Claims about which weights to adapt under one budget of parameters."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.claims.engine import Claim
from analysis.claims.measures import Choose, Pair, best, compared, runs_of

FILES = runs_of("weight_types")
CHOSEN = (
    "Of several sets the one with the best mean on validation data; test scores, for each seed the mean over the "
    "budgets that both have, paired by seed."
)
FEED_FORWARD = ("q+k+v+o+up+down", "q+k+v+o+up+gate+down")


def _against(ours: Sequence[str], theirs: Sequence[str]) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        first, second = (best(rows[rows["weight_types"].isin(sets)], "weight_types") for sets in (ours, theirs))
        shared = set(first["budget"]) & set(second["budget"])
        yield Pair(first[first["budget"].isin(shared)], second[second["budget"].isin(shared)])

    return choose


CLAIMS = [
    Claim(
        key="qv_for_the_budget",
        statement="Under one budget q+v is better than all of it in q or in k.",
        source="paper, Section 7.1, Table 5",
        statistic=f"q+v minus the better of q and k. {CHOSEN}",
        files=FILES,
        judge=compared(_against(["q+v"], ["q", "k"])),
        low=0,
    ),
    Claim(
        key="types_over_rank",
        statement="More weight types are worth more than a larger rank: q+k+v+o is better than any one of them.",
        source="paper, Section 7.1, Table 5",
        statistic=f"q+k+v+o minus the best of q, k, v, o. {CHOSEN}",
        files=FILES,
        judge=compared(_against(["q+k+v+o"], ["q", "k", "v", "o"])),
        low=0,
    ),
    Claim(
        key="all_layers",
        statement="Under one budget adapters on all weights, feed-forward layers included, are better than q+v.",
        source="guides: QLoRA (arXiv 2305.14314), LoRA Without Regret (Schulman et al., 2025)",
        statistic=f"All weight types minus q+v. {CHOSEN}",
        files=FILES,
        judge=compared(_against(FEED_FORWARD, ["q+v"])),
        low=0,
    ),
]
