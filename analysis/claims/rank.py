"""Claims about the rank r."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames
from analysis.claims.measures import best, blocks, by_seed, ids, lora, replicates, runs_of
from analysis.claims.pairs import POINT, Choose, Pair, grown, of_losses, of_scores
from analysis.claims.scales import SIGNED

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
    yield grown(lora(rows, "q+v"), "r", "r")


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
        runs = lora(block.rows[~block.lost], "q+v")
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
    of_scores(
        "small_rank", "A small rank suffices for q+v: none above 8 is more than a point better.",
        "paper, Section 7.2, Table 6", f"Best r above 8 minus best r up to 8. {CHOSEN}", CLASSIFIERS, _above(8), high=1,
    ),
    of_losses(
        "small_rank_text",
        "Where text is written, a small rank suffices for q+v: none above 8 has a test loss lower by 2%.",
        "paper, Section H.2, Table 18", f"Best r above 8 minus best r up to 8. {CHOSEN_LOSS}", WRITERS, _above(8),
        high=1,
    ),
    of_scores(
        "rank_one", "Even r = 1 suffices for q+v: no other rank is more than a point better.",
        "paper, Section 7.2, Table 6", f"Best r above 1 minus r = 1. {CHOSEN}", CLASSIFIERS, _above(1), high=1,
    ),
    of_losses(
        "rank_one_text",
        "Where text is written, even r = 1 suffices for q+v: no other rank has a test loss lower by 2%.",
        "paper, Section H.2, Table 18 (where r = 2 is needed)", f"Best r above 1 minus r = 1. {CHOSEN_LOSS}", WRITERS,
        _above(1), high=1,
    ),
    Claim(
        "q_alone", "q alone needs a larger rank than q+v.", "paper, Section 7.2, Table 6",
        f"What q gains from r = 1 to its best r, less what q+v gains. {CHOSEN}", runs_of("rank_ablation"), _q_alone,
        margin=POINT, low=0,
    ),
    of_scores(
        "grows_safely", "LoRA does not get worse as it grows: its largest rank is at most a point below its best.",
        "paper, Section 5.5, Figure 2", f"Largest r minus the best of the others, q+v. {CHOSEN}",
        runs_of("scaling", "rank_ablation", "rank_data"), _largest, low=-1,
    ),
    of_losses(
        "grows_safely_text",
        "Where text is written, LoRA does not get worse as it grows: its largest rank loses less than 2%.",
        "paper, Section 5.5, Figure 2, Tables 15 and 18", f"Largest r minus the best of the others, q+v. {CHOSEN_LOSS}",
        WRITERS, _largest, low=-1,
    ),
    of_losses(
        "beyond_64", "Where text is written, ranks beyond 64 bring nothing: less than 2% of the perplexity.",
        "paper, Section H.2, Table 18", f"Best r above 64 minus best r up to 64. {CHOSEN_LOSS}",
        runs_of("rank_generation"), _above(64), high=1,
    ),
    Claim(
        "larger_base", "A larger base needs a smaller rank.",
        "guides, after Aghajanyan et al. (arXiv 2012.13255); the paper leaves it open (Section H.2)",
        "log2 of the smallest rank that is at most a point below the seed's best, on one task: the larger "
        "base less the smaller, paired by seed.", runs_of("rank_ablation"), _larger_base, margin=1, high=0,
        scale=SIGNED, command="make ablate-rank PRESET={preset} ARGS='model=minilm,roberta_base'",
    ),
    Claim(
        "more_data", "More training data need a larger rank.", "guides: LoRA Without Regret (Schulman et al., 2025)",
        "Largest r minus smallest r with most training examples, less the same with fewest, paired by seed.",
        runs_of("rank_data"), _more_data, margin=2 * POINT, low=0,
    ),
]  # fmt: skip
