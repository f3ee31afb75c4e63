"""Claims about the directions that two runs share: the paper's Section 7.2.

A replicate is a pair of runs. phi is always taken less its mean for random directions, and averaged over layers and
weight types, of which a pair has many, before pairs are compared.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.claims.engine import Case, Claim, Frames, Judge
from analysis.claims.measures import places, replicates
from analysis.claims.scales import PLAIN, SIGNED
from lora.config import InputError

RANKS, SEEDS = "subspace/phi_r*.csv", "subspace/phi_seeds_A*.csv"  # a row for each i, with the columns j1, j2, …
CHANCE = "subspace/phi_gaussian.csv"
SIDE = "A"  # right singular vectors of A, as in the paper
PAIRS = 5  # pairs of runs below which nothing is decided: a pair has one draw of its seeds, whatever it has of layers
OVER = "The mean over layers and weight types of each pair of runs; pairs have no run in common."


class Cells(NamedTuple):
    """The grids of one pair of runs, of one weight type: phi at (i, j) by layer, and its mean for random directions."""

    rows: pd.DataFrame
    chance: pd.DataFrame
    small: int
    large: int

    def beyond(self, i: int, j: int) -> pd.Series:
        """phi(i, j) less its mean for random directions, by layer."""
        at = self.rows[self.rows["i"] == i].set_index("layer")[f"j{j}"]
        by_chance = self.chance[(self.chance["i"] == i) & (self.chance["j"] == j)]["mean"]
        return at - by_chance.iloc[0]


def _pairs(grids: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """The pairs of runs in order, without those that have a run in common with one before."""
    used: set[str] = set()
    for (one, other), rows in grids.groupby(["run_id", "other_run_id"], sort=False):
        pair = str(one), str(other)
        if not used & set(pair):
            used |= set(pair)
            yield pair, rows


def _judge(name: str, of: Callable[[Cells], pd.Series], types: tuple[str, ...] = ()) -> Judge:
    """For each model and task `of`, a number a layer, of every pair of runs: the mean over layers, then over weight
    types; with `types` (two) that of the first less that of the second."""

    def judge(frames: Frames) -> list[Case]:
        if not {name, CHANCE} <= set(frames):
            return []
        grids, cases = frames[name], []
        for where, task, own in places(grids[grids["side"] == SIDE]):
            values: list[float] = []
            runs: list[str] = []
            for pair, rows in _pairs(own):
                kinds = rows.groupby("weight_type", sort=False)
                means = {str(kind): float(of(_cells(cells, frames)).mean()) for kind, cells in kinds}
                if not types:
                    values.append(float(np.mean(list(means.values()))))
                elif set(types) <= set(means):
                    values.append(means[types[0]] - means[types[1]])
                runs += pair
            cases += replicates("subspace", where, task, values, "pairs of runs", tuple(runs))
        return cases

    return judge


def _cells(rows: pd.DataFrame, frames: Frames) -> Cells:
    small = int(rows["i"].max())
    filled = [int(name[1:]) for name in map(str, rows) if name[1:].isdigit() and rows[name].notna().any()]
    large, chance = max(filled), frames[CHANCE]
    dim = int(rows["dim"].iloc[0])
    own = chance[(chance["dim"] == dim) & (chance["r_a"] == small) & (chance["r_b"] == large)]
    if own.empty:
        raise InputError(
            f"{CHANCE} has no rows of {small} and {large} random directions of {dim}; delete it, the study's "
            "make target writes it anew"
        )
    return Cells(rows, own, small, large)


def _top(cells: Cells) -> pd.Series:
    return cells.beyond(1, 1)


def _contrast(cells: Cells) -> pd.Series:
    """phi(1, 1) less the share of directions 2 to r in directions 2 to r, each less what it is by chance."""
    r = cells.small
    whole, row, column, corner = (min(i, j) * cells.beyond(i, j) for i, j in ((r, r), (1, r), (r, 1), (1, 1)))
    return corner - (whole - row - column + corner) / (r - 1)


def _few(cells: Cells) -> pd.Series:
    """phi(8, 8), or of all directions where there are fewer."""
    few = min(8, cells.small)
    return cells.beyond(few, few)


def _shared(cells: Cells) -> pd.Series:
    """How many of all directions two seeds share."""
    return cells.small * cells.beyond(cells.small, cells.large)


CLAIMS = [
    Claim(
        "top_shared",
        "The top direction is shared between a small and a large rank (8 and 64): phi(1, 1) is above 0.5.",
        "paper, Section 7.2, Figure 3",
        f"phi(1, 1) between the two ranks, of A, less its mean for random directions. {OVER}", (RANKS, CHANCE),
        _judge(RANKS, _top), margin=0.1, low=0.5, scale=PLAIN, least=PAIRS,
    ),
    Claim(
        "top_above_chance",
        "The top direction is shared between a small and a large rank (8 and 64) more than by chance.",
        "paper, Section 7.2, Figure 3",
        f"phi(1, 1) between the two ranks, of A, less its mean for random directions. {OVER}", (RANKS, CHANCE),
        _judge(RANKS, _top), margin=0.05, low=0, scale=SIGNED, least=PAIRS,
    ),
    Claim(
        "only_the_top", "Of a small and a large rank (8 and 64) the top direction is shared more than the others.",
        "paper, Section 7.2, Figures 3 and 4 (where the others are noise)",
        "phi(1, 1) less the share of directions 2 to r of the small rank that lies in directions 2 to r of "
        f"the large one, of A, each less its mean for random directions. {OVER}", (RANKS, CHANCE),
        _judge(RANKS, _contrast), margin=0.05, low=0, scale=SIGNED, least=PAIRS,
    ),
    Claim(
        "seeds_share", "Two seeds share a subspace that Gaussian matrices do not.", "paper, Section 7.2, Figure 4",
        f"phi(8, 8) between two seeds of the large rank (64), of A, less its mean for random ones. {OVER}",
        (SEEDS, CHANCE), _judge(SEEDS, _few), margin=0.05, low=0, scale=SIGNED, least=PAIRS,
    ),
    Claim(
        "q_shares_more",
        "delta_w of q has a higher intrinsic rank than that of v: two seeds share more of its directions.",
        "paper, Section 7.2, Figure 4",
        "r phi(r, r) between two seeds of the large rank r (64), of A, less the same by chance: a number of "
        "directions; q minus v, each the mean over layers of a pair of runs.", (SEEDS, CHANCE),
        _judge(SEEDS, _shared, ("q", "v")), margin=0.2, low=0, scale=SIGNED, least=PAIRS,
    ),
]  # fmt: skip
