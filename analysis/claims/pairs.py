"""Claims about pairs of settings, compared seed by seed: which runs, the case of each pair, and the claim of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import Block, best, blocks, by_seed, ids
from analysis.claims.scales import NATS
from analysis.maths import estimates
from analysis.maths.svd import Array

POINT, NAT = 0.01, 0.02  # a point of a score; 2% of the perplexity
BOTH = "Each at the setting that is best on validation data; test scores, paired by seed."
BOTH_LOSS = "Each at the setting with the lowest validation loss; by how much the test loss is lower, paired by seed."


class Pair(NamedTuple):
    """Two sets of runs to be compared seed by seed; name: what tells this pair from others of the same task."""

    ours: pd.DataFrame
    theirs: pd.DataFrame
    name: str = ""


Choose = Callable[[pd.DataFrame], Iterable[Pair]]


def grown(rows: pd.DataFrame, size: str, by: str, name: str = "") -> Pair:
    """The runs of the largest `size`, and those of the value of `by` that is best of the others on validation data."""
    large = rows[size] == rows[size].max()
    return Pair(rows[large], best(rows[~large], by), name)


def of_scores(
    key: str, statement: str, source: str, statistic: str, files: Sequence[str], choose: Choose, *,
    low: float = -np.inf, high: float = np.inf, command: str = "",
) -> Claim:  # fmt: skip
    """A claim of classifiers, by their test scores; low, high: in points, which are the margin too."""
    judge, unit = compared(choose), POINT
    return Claim(key, statement, source, statistic, tuple(files), judge, unit, low * unit, high * unit, command=command)


def of_losses(
    key: str, statement: str, source: str, statistic: str, files: Sequence[str], choose: Choose, *,
    low: float = -np.inf, high: float = np.inf,
) -> Claim:  # fmt: skip
    """A claim of language models, by how much the test loss is lower; low, high: in 2% of the perplexity, which is the
    margin too."""
    judge, unit = compared(choose, written=True), NAT
    return Claim(key, statement, source, statistic, tuple(files), judge, unit, low * unit, high * unit, NATS)


def compared(choose: Choose, written: bool = False) -> Judge:
    """A judge: in every study, model and task the differences that `choose` picks, paired by seed; of scores of
    classifiers, or of the test loss of language models (written), as `measures.blocks`.

    A study whose runs are all in a case before adds none: a run speaks once.
    """

    def judge(frames: Frames) -> list[Case]:
        cases: list[Case] = []
        for block in blocks(frames, written):
            for ours, theirs, name in choose(block.rows):
                runs = ids(ours, theirs)
                if ours.empty or theirs.empty or any(set(runs) <= set(case.runs) for case in cases):
                    continue
                case = paired(block, ours, theirs, name)
                cases += [case] if case else []
        return cases

    return judge


def paired(block: Block, ours: pd.DataFrame, theirs: pd.DataFrame, name: str = "") -> Case | None:
    """The case of ours minus theirs, rows of a block, by seed and without runs that predict about one class; None if
    they share no seed."""
    lost = [block.lost[part.index] for part in (ours, theirs)]
    kept = [part[~gone] for part, gone in zip((ours, theirs), lost, strict=True)]
    note = ""
    if any(gone.any() for gone in lost):
        counts = " and ".join(f"{gone.sum()} of {len(gone)}" for gone in lost)
        note = f"{counts} runs predict about one class, and do not count"
    where = f"{block.where} {name}".strip()
    if not set(ours["seed"]) & set(theirs["seed"]):
        return None
    items = _by_item(kept[0], kept[1], block.column)
    runs = sum(1 / part.groupby("seed").size().mean() for part in kept if len(part))
    pooled = block.others(ours, theirs)
    found = estimates.paired(by_seed(kept[0]), by_seed(kept[1]), pooled, runs, items)
    return Case(block.study, where, block.task, found, "seeds", ids(ours, theirs), note=note, items=items is not None)


def _by_item(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> Array | None:
    """Ours minus theirs (seeds, items), of the test items in `column`; None if a run of them has kept none, runs are of
    different items, or a seed has several runs."""
    both = pd.concat([ours, theirs])
    if column not in both or both[column].isna().any() or both["items_of"].nunique() != 1:
        return None
    if ours["seed"].duplicated().any() or theirs["seed"].duplicated().any():
        return None
    first, second = (part.set_index("seed")[column] for part in (ours, theirs))
    shared = first.index.intersection(second.index)
    if shared.empty:
        return None
    table: Array = np.stack([first[seed] - second[seed] for seed in shared])
    return -table if column == "losses" else table
