"""Claims about which weights to adapt under one budget of parameters."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.claims.engine import Claim
from analysis.claims.measures import best, runs_of
from analysis.claims.pairs import Choose, Pair, of_losses, of_scores

FILES = runs_of("weight_types")
CHOSEN = (
    "Of several sets the one with the best mean on validation data; test scores, for each seed the mean over the "
    "budgets that both have, paired by seed."
)
CHOSEN_LOSS = CHOSEN.replace("test scores", "by how much the test loss is lower")
FEED_FORWARD = ("q+k+v+o+up+down", "q+k+v+o+up+gate+down")


def _against(ours: Sequence[str], theirs: Sequence[str]) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        first, second = (best(rows[rows["weight_types"].isin(sets)], "weight_types") for sets in (ours, theirs))
        shared = set(first["budget"]) & set(second["budget"])
        yield Pair(first[first["budget"].isin(shared)], second[second["budget"].isin(shared)])

    return choose


def _both(
    key: str, statement: str, source: str, compares: str, ours: Sequence[str], theirs: Sequence[str]
) -> list[Claim]:
    """The claim of classifiers, by their scores, and of language models, by their test loss."""
    choose, text = _against(ours, theirs), f"Where text is written: {statement[0].lower()}{statement[1:]}"
    return [
        of_scores(key, statement, source, f"{compares} {CHOSEN}", FILES, choose, low=0),
        of_losses(f"{key}_text", text, source, f"{compares} {CHOSEN_LOSS}", FILES, choose, low=0),
    ]


CLAIMS = [
    *_both(
        "qv_for_the_budget", "Under one budget q+v is better than all of it in q or in k.",
        "paper, Section 7.1, Table 5", "q+v minus the better of q and k.", ["q+v"], ["q", "k"],
    ),
    *_both(
        "types_over_rank",
        "More weight types are worth more than a larger rank: q+k+v+o is better than any one of them.",
        "paper, Section 7.1, Table 5", "q+k+v+o minus the best of q, k, v, o.", ["q+k+v+o"], ["q", "k", "v", "o"],
    ),
    *_both(
        "all_layers",
        "Under one budget adapters on all weights, feed-forward layers included, are better than q+v.",
        "guides: QLoRA (arXiv 2305.14314), LoRA Without Regret (Schulman et al., 2025)",
        "All weight types minus q+v.", FEED_FORWARD, ["q+v"],
    ),
]  # fmt: skip
