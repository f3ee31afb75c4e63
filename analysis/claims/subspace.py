"""Claims about the directions that two runs share: the paper's Section 7.2."""

from collections.abc import Iterator

import pandas as pd

from analysis.claims.engine import PLAIN, SIGNED, Case, Claim, Frames, Judge
from analysis.claims.measures import difference, ids, mean, own_runs, places

TABLE = "subspace/table.csv"
GRIDS = "subspace/phi_r*.csv"  # between two ranks, a row for each i, with the columns j1, j2, …
RUNS = "subspace/runs.csv"
SIDE = "A"  # right singular vectors of A, as in the paper
OF_LAYERS = "For each weight type the mean over layers, whose interval is over layers of one pair of runs."


def _sites(frames: Frames, seeds: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """(where, entries of one weight type, layer by layer) of the comparison of seeds, or of ranks."""
    if TABLE in frames:
        table = frames[TABLE]
        table = table[(table["side"] == SIDE) & ((table["comparison"] == "seeds") == seeds)]
        yield from places(table, "weight_type")


def _runs(frames: Frames, rows: pd.DataFrame, seeds: bool) -> tuple[str, ...]:
    """What `studies.subspace.study` compares: two seeds of the largest rank, or one with another of the smallest."""
    runs = own_runs(frames, "subspace", rows)
    if runs.empty:
        return ()
    small, large = runs[runs["r"] == runs["r"].min()][:1], runs[runs["r"] == runs["r"].max()][:2]
    return ids(large) if seeds else ids(small, large.sort_values("seed", key=lambda s: s == small["seed"].iloc[0])[:1])


def _at(rows: pd.DataFrame, i: float, j: float) -> pd.DataFrame:
    return rows[(rows["i"] == i) & (rows["j"] == j)].set_index("layer")


def _of(grids: pd.DataFrame, i: int, j: int) -> pd.Series:
    """phi(i, j) by layer."""
    return grids[grids["i"] == i].set_index("layer")[f"j{j}"]


def _top(above: str | None) -> Judge:
    """phi(1, 1) of the two ranks, less the number in column `above`."""

    def judge(frames: Frames) -> list[Case]:
        cases = []
        for where, rows in _sites(frames, seeds=False):
            top = _at(rows, 1, 1)
            values = top["phi"] - (top[above] if above else 0)
            cases.append(mean("subspace", where, values, "layers", _runs(frames, rows, seeds=False)))
        return cases

    return judge


def _others(frames: Frames) -> list[Case]:
    """By how much the share of directions 2 to r of the small rank in those of the large is above chance."""
    if GRIDS not in frames:
        return []
    grids = dict(places(frames[GRIDS][frames[GRIDS]["side"] == SIDE], "weight_type"))
    cases = []
    for where, rows in _sites(frames, seeds=False):
        r, large = rows["i"].max(), rows["j"].max()
        chance = (r - 1) * _at(rows, r, large)["gaussian_mean"] / large  # (r - 1) of d directions
        whole, row, column, corner = (min(i, j) * _of(grids[where], i, j) for i, j in ((r, r), (1, r), (r, 1), (1, 1)))
        values = ((whole - row - column + corner) / (r - 1) - chance).dropna()
        cases.append(mean("subspace", where, values, "layers", _runs(frames, rows, seeds=False)))
    return cases


def _seeds(frames: Frames) -> list[Case]:
    cases = []
    for where, rows in _sites(frames, seeds=True):
        small = sorted(rows["i"].unique())[1]  # 1, the small rank, the large one
        top = _at(rows, small, small)
        values = top["phi"] - top["gaussian_high"]
        cases.append(mean("subspace", where, values, "layers", _runs(frames, rows, seeds=True)))
    return cases


def _q_and_v(frames: Frames) -> list[Case]:
    """Directions that two seeds share beyond chance, of q less of v."""
    shared: dict[str, dict[str, pd.Series]] = {}
    runs = {}
    for where, rows in _sites(frames, seeds=True):
        place, _, weight_type = where.rpartition(" ")
        r = rows["i"].max()
        at = _at(rows, r, r)
        shared.setdefault(place, {})[weight_type] = r * (at["phi"] - at["gaussian_mean"])
        runs[place] = _runs(frames, rows, seeds=True)
    return [
        case
        for place, found in shared.items()
        if {"q", "v"} <= set(found)
        for case in difference("subspace", place, found["q"], found["v"], runs[place], "layers")
    ]


CLAIMS = [
    Claim(
        key="top_shared",
        statement="The top direction is shared between a small and a large rank (8 and 64): phi(1, 1) is above 0.5.",
        source="paper, Section 7.2, Figure 3",
        statistic=f"phi(1, 1) between the two ranks, of A. {OF_LAYERS}",
        files=(TABLE, RUNS),
        judge=_top(None),
        low=0.5,
        scale=PLAIN,
    ),
    Claim(
        key="top_above_chance",
        statement="The top direction is shared between a small and a large rank (8 and 64) more than by chance.",
        source="paper, Section 7.2, Figure 3",
        statistic="phi(1, 1) between the two ranks, of A, less the upper end of the interval that holds 95% of "
        f"Gaussian draws. {OF_LAYERS}",
        files=(TABLE, RUNS),
        judge=_top("gaussian_high"),
        low=0,
        scale=SIGNED,
    ),
    Claim(
        key="others_are_noise",
        statement="The other directions of a small and a large rank (8 and 64) are near chance.",
        source="paper, Section 7.2, Figures 3 and 4",
        statistic="With r the small rank, the share of its directions 2 to r that lies in directions 2 to r of the "
        f"large one, of A, less that of random directions; near is at most 0.05 above. {OF_LAYERS}",
        files=(TABLE, GRIDS, RUNS),
        judge=_others,
        high=0.05,
        scale=SIGNED,
    ),
    Claim(
        key="seeds_share",
        statement="Two seeds share a subspace that Gaussian matrices do not.",
        source="paper, Section 7.2, Figure 4",
        statistic="phi(r, r), with r the small rank (8), between two seeds of the large one (64), of A, less the upper "
        f"end of the interval that holds 95% of Gaussian draws. {OF_LAYERS}",
        files=(TABLE, RUNS),
        judge=_seeds,
        low=0,
        scale=SIGNED,
    ),
    Claim(
        key="q_shares_more",
        statement="delta_w of q has a higher intrinsic rank than that of v: two seeds share more of its directions.",
        source="paper, Section 7.2, Figure 4",
        statistic="r phi(r, r) between two seeds of the large rank r (64), of A, less the same by chance: a number of "
        "directions; q minus v, paired by layer.",
        files=(TABLE, RUNS),
        judge=_q_and_v,
        low=0,
        scale=SIGNED,
    ),
]
