"""Claims about the rank r."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.claims.engine import NATS, SIGNED, Case, Claim, Frames
from analysis.claims.measures import (
    Choose,
    Pair,
    best,
    blocks,
    by_seed,
    compared,
    ids,
    lora,
    replicates,
    runs_of,
)

POINT, NAT = 0.01, 0.02  # a point of a score; 2% of the perplexity
CHOSEN = "Chosen by the mean on validation data; test scores are compared, paired by seed."
CHOSEN_LOSS = "Chosen by the mean validation loss; by how much the test loss is lower is compared, paired by seed."
CLASSIFIERS = runs_of("rank_ablation", "scaling", "rank_data")
WRITERS = runs_of("rank_generation", "table15", "table4", "table3")


def _above(limit: int) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        runs = lora(rows, "q+v")
        yield Pair(best(runs[runs["r"] > limit], "r"), best(runs[runs["r"] <= limit], "r"))

    return choose


def _largest(rows: pd.DataFrame) -> Iterator[Pair]:
    runs = lora(rows, "q+v")
    large = runs["r"] == runs["r"].max()
    yield Pair(runs[large], best(runs[~large], "r"))


def _q_alone(frames: Frames) -> list[Case]:
    cases = []
    for block in blocks(frames, written=False):
        whole = block.rows[~block.lost]
        gains, used = [], []
        for weight_types in ("q", "q+v"):
            runs = lora(whole, weight_types)
            one, more = runs[runs["r"] == 1], best(runs[runs["r"] > 1], "r")
            gains.append(by_seed(more) - by_seed(one))
            used += [one, more]
        cases += replicates(*block[:3], gains[0] - gains[1], "seeds", ids(*used), block.others(*used), each=4)
    return cases


def _least_rank(runs: pd.DataFrame) -> pd.Series:
    """By seed: log2 of the smallest rank whose score is at most a point below that of the seed's best rank."""
    scores = runs.pivot_table("value", "seed", "r")
    enough = scores.ge(scores.max(axis=1) - POINT, axis=0)
    return enough.idxmax(axis=1).map(np.log2)


def _larger_base(frames: Frames) -> list[Case]:
    bases: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for block in blocks(frames, written=False):
        runs = lora(block.rows, "q+v")
        if runs["r"].nunique() > 1:
            bases.setdefault((block.study, block.task), []).append(runs)
    cases = []
    for (study, task), found in bases.items():
        # LoRA of one rank has the more parameters the wider and the deeper its base is.
        found.sort(key=lambda runs: (runs["trainable_params"] / runs["r"]).min())
        small, large = found[0], found[-1]
        if small is not large:
            where = f"{task}, {large['model'].iloc[0]} and {small['model'].iloc[0]}"
            less = _least_rank(large) - _least_rank(small)
            cases += replicates(study, where, task, less, "seeds", ids(small, large))
    return cases


def _more_data(frames: Frames) -> list[Case]:
    cases = []
    for block in blocks(frames, written=False):
        whole = block.rows[~block.lost]
        runs = lora(whole, "q+v")
        sizes = runs["train_examples"]
        ends = [runs[sizes == size] for size in (sizes.max(), sizes.min())]
        if sizes.nunique() > 1 and all(end["r"].nunique() > 1 for end in ends):
            most, fewest = (
                by_seed(end[end["r"] == end["r"].max()]) - by_seed(end[end["r"] == end["r"].min()]) for end in ends
            )
            cases += replicates(*block[:3], most - fewest, "seeds", ids(*ends), block.others(*ends), each=4)
    return cases


CLAIMS = [
    Claim(
        key="small_rank",
        statement="A small rank suffices for q+v: none above 8 is more than a point better.",
        source="paper, Section 7.2, Table 6",
        statistic=f"Best r above 8 minus best r up to 8. {CHOSEN}",
        files=CLASSIFIERS,
        judge=compared(_above(8)),
        high=POINT,
        margin=POINT,
    ),
    Claim(
        key="small_rank_text",
        statement="Where text is written, a small rank suffices for q+v: none above 8 has a test loss lower by 2%.",
        source="paper, Section H.2, Table 18",
        statistic=f"Best r above 8 minus best r up to 8. {CHOSEN_LOSS}",
        files=WRITERS,
        judge=compared(_above(8), written=True),
        high=NAT,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="rank_one",
        statement="Even r = 1 suffices for q+v: no other rank is more than a point better.",
        source="paper, Section 7.2, Table 6",
        statistic=f"Best r above 1 minus r = 1. {CHOSEN}",
        files=CLASSIFIERS,
        judge=compared(_above(1)),
        high=POINT,
        margin=POINT,
    ),
    Claim(
        key="rank_one_text",
        statement="Where text is written, even r = 1 suffices for q+v: no other rank has a test loss lower by 2%.",
        source="paper, Section H.2, Table 18 (where r = 2 is needed)",
        statistic=f"Best r above 1 minus r = 1. {CHOSEN_LOSS}",
        files=WRITERS,
        judge=compared(_above(1), written=True),
        high=NAT,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="q_alone",
        statement="q alone needs a larger rank than q+v.",
        source="paper, Section 7.2, Table 6",
        statistic=f"What q gains from r = 1 to its best r, less what q+v gains. {CHOSEN}",
        files=runs_of("rank_ablation"),
        judge=_q_alone,
        low=0,
        margin=POINT,
    ),
    Claim(
        key="grows_safely",
        statement="LoRA does not get worse as it grows: its largest rank is at most a point below its best.",
        source="paper, Section 5.5, Figure 2",
        statistic=f"Largest r minus the best of the others, q+v. {CHOSEN}",
        files=runs_of("scaling", "rank_ablation", "rank_data"),
        judge=compared(_largest),
        low=-POINT,
        margin=POINT,
    ),
    Claim(
        key="grows_safely_text",
        statement="Where text is written, LoRA does not get worse as it grows: its largest rank loses less than 2%.",
        source="paper, Section 5.5, Figure 2, Tables 15 and 18",
        statistic=f"Largest r minus the best of the others, q+v. {CHOSEN_LOSS}",
        files=WRITERS,
        judge=compared(_largest, written=True),
        low=-NAT,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="beyond_64",
        statement="Where text is written, ranks beyond 64 bring nothing: less than 2% of the perplexity.",
        source="paper, Section H.2, Table 18",
        statistic=f"Best r above 64 minus best r up to 64. {CHOSEN_LOSS}",
        files=runs_of("rank_generation"),
        judge=compared(_above(64), written=True),
        high=NAT,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="larger_base",
        statement="A larger base needs a smaller rank.",
        source="guides, after Aghajanyan et al. (arXiv 2012.13255); the paper leaves it open (Section H.2)",
        statistic="log2 of the smallest rank that is at most a point below the seed's best, on one task: the larger "
        "base less the smaller, paired by seed.",
        files=runs_of("rank_ablation"),
        judge=_larger_base,
        high=0,
        margin=1,
        scale=SIGNED,
        command="make ablate-rank PRESET={preset} ARGS='model=minilm,roberta_base'",
    ),
    Claim(
        key="more_data",
        statement="More training data need a larger rank.",
        source="guides: LoRA Without Regret (Schulman et al., 2025)",
        statistic="Largest r minus smallest r with most training examples, less the same with fewest, paired by seed.",
        files=runs_of("rank_data"),
        judge=_more_data,
        low=0,
        margin=2 * POINT,
    ),
]
