"""Claims about the rank r."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.claims.engine import SIGNED, Case, Claim, Frames
from analysis.claims.measures import Choose, Pair, best, by_seed, by_task, compared, difference, ids, lora, runs_of

POINT = 0.01
CHOSEN = "Chosen by the mean on validation data; test scores are compared, paired by seed."


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
    for study, where, rows in by_task(frames):
        gains, used = [], []
        for weight_types in ("q", "q+v"):
            runs = lora(rows, weight_types)
            one, more = runs[runs["r"] == 1], best(runs[runs["r"] > 1], "r")
            gains.append(by_seed(more) - by_seed(one))
            used += [one, more]
        cases += difference(study, where, gains[0], gains[1], ids(*used))
    return cases


def _least_rank(runs: pd.DataFrame) -> pd.Series:
    """By seed: log2 of the smallest rank whose score is at most a point below that of the seed's best rank."""
    scores = runs.pivot_table("value", "seed", "r")
    enough = scores.ge(scores.max(axis=1) - POINT, axis=0)
    return enough.idxmax(axis=1).map(np.log2)


def _larger_base(frames: Frames) -> list[Case]:
    bases: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for study, _, rows in by_task(frames):
        runs = lora(rows, "q+v")
        if runs["r"].nunique() > 1:
            bases.setdefault((study, str(runs["task"].iloc[0])), []).append(runs)
    cases = []
    for (study, task), found in bases.items():
        # LoRA of one rank has the more parameters the wider and the deeper its base is.
        found.sort(key=lambda runs: (runs["trainable_params"] / runs["r"]).min())
        small, large = found[0], found[-1]
        if small is not large:
            where = f"{task}, {large['model'].iloc[0]} and {small['model'].iloc[0]}"
            cases += difference(study, where, _least_rank(large), _least_rank(small), ids(small, large))
    return cases


def _more_data(frames: Frames) -> list[Case]:
    cases = []
    for study, where, rows in by_task(frames):
        runs = lora(rows, "q+v")
        sizes = runs["train_examples"]
        ends = [runs[sizes == size] for size in (sizes.max(), sizes.min())]
        if sizes.nunique() > 1 and all(end["r"].nunique() > 1 for end in ends):
            gains = [
                by_seed(end[end["r"] == end["r"].max()]) - by_seed(end[end["r"] == end["r"].min()]) for end in ends
            ]
            cases += difference(study, where, gains[0], gains[1], ids(*ends))
    return cases


CLAIMS = [
    Claim(
        key="small_rank",
        statement="A small rank suffices for q+v: none above 8 is more than a point better.",
        source="paper, Section 7.2, Tables 6 and 18",
        statistic=f"Best r above 8 minus best r up to 8. {CHOSEN}",
        files=runs_of("rank_ablation", "scaling", "rank_generation"),
        judge=compared(_above(8)),
        high=POINT,
    ),
    Claim(
        key="rank_one",
        statement="Even r = 1 suffices for q+v: no other rank is more than a point better.",
        source="paper, Section 7.2, Table 6",
        statistic=f"Best r above 1 minus r = 1. {CHOSEN}",
        files=runs_of("rank_ablation", "scaling", "rank_generation"),
        judge=compared(_above(1)),
        high=POINT,
    ),
    Claim(
        key="q_alone",
        statement="q alone needs a larger rank than q+v.",
        source="paper, Section 7.2, Table 6",
        statistic=f"What q gains from r = 1 to its best r, less what q+v gains. {CHOSEN}",
        files=runs_of("rank_ablation"),
        judge=_q_alone,
        low=0,
    ),
    Claim(
        key="grows_safely",
        statement="LoRA does not get worse as it grows: its largest rank is at most a point below its best.",
        source="paper, Section 5.5, Figure 2",
        statistic=f"Largest r minus the best of the others, q+v. {CHOSEN}",
        files=runs_of("scaling", "rank_ablation", "table15", "rank_generation"),
        judge=compared(_largest),
        low=-POINT,
    ),
    Claim(
        key="beyond_64",
        statement="Where text is written, ranks beyond 64 bring nothing: at most a point of BLEU.",
        source="paper, Section H.2, Table 18",
        statistic=f"Best r above 64 minus best r up to 64. {CHOSEN}",
        files=runs_of("rank_generation"),
        judge=compared(_above(64)),
        high=POINT,
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
    ),
]
