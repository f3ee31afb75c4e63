"""Which directions do updates of different rank, or of different seed, share: the paper's Figures 3, 4, 6 and 7."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.kit import pages, phi, tables
from analysis.kit.data import Data
from analysis.kit.measured import Rows
from analysis.kit.phi import SIDES
from analysis.kit.study import Study
from analysis.kit.updates import PLACE, place_name
from analysis.maths import estimates
from analysis.maths.statistics import mean_text
from analysis.maths.subspace import Baseline, gaussian_baseline
from analysis.maths.svd import Array
from analysis.studies.subspace.draw import DEEP, Comparison, draw_ranks, draw_seeds
from analysis.studies.subspace.tables import baseline, by_side, by_site, gaussian, tabulate, verdict
from analysis.weights.sites import Site
from experiments.store import Store
from lora.config import InputError

SHAPE = ["dim", "r_a", "r_b"]
RUNS = ["run_id", "other_run_id"]
DIGITS = 5
JUDGED = "A"  # the side that claims are about: right singular vectors of A, as in the paper
READING = """\
phi(i, j) is the share of the top-i directions of one run that lies in the top-j of the other (or the reverse, if
j < i), from 0 to 1: its median over layers, and (the smallest to the largest). Above chance, or `*`: above the interval
that holds 95% of draws between random Gaussian matrices. Layers count from 0; table.csv has every layer. Figures are
made from A, as in the paper (right singular vectors: directions of the input), from B (left: of the output), and from
the right and left singular vectors of delta_w. Ranks are compared between different seeds: with one seed, the first
module's A starts from the same random numbers at every rank, and the smaller is part of the larger before any
training."""


class Choice(NamedTuple):
    """The runs that are compared, as (run_id, seed): one at r_small, and two seeds at r_large.

    more: further pairs of run_ids by comparison, for what is judged over pairs of runs; no two have a run in common.
    """

    place: tuple[str, str]  # model, task
    r_small: int
    r_large: int
    small: tuple[str, int]
    large: tuple[str, int]
    other: tuple[str, int]
    more: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def ranks(self) -> str:
        """The name of the comparison of ranks, as in file names."""
        return f"r{self.r_small}_r{self.r_large}"


def load(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    """The runs by place, rank and seed."""
    by = [*PLACE, "r", "seed", "run_id"]
    return tables.load_runs(study_dir, runs_dir).sort_values(by, ignore_index=True)


def choices(data: Data) -> dict[str, Choice]:
    """What is compared, by what the names of its files end with."""
    found = choose(data.runs, data.folder)
    return {phi.suffix(choice.place, [one.place for one in found]): choice for choice in found}


def choose(runs: pd.DataFrame, study_dir: Path) -> list[Choice]:
    """For each model and task the runs to compare: at the smallest rank of the study, and two seeds at the largest.

    A seed draws the same random numbers at every rank: in the first module A_r64 starts with the rows of A_r8, and
    phi(8, 64) is 1 before any training. The run at r_small is therefore compared with another seed at r_large.
    """
    final = tables.in_role(runs, "study").drop_duplicates("run_id")
    if final["weight_types"].nunique() > 1:
        sets = ", ".join(final["weight_types"].unique())
        raise InputError(f"{study_dir} compares runs of one weight_types, but lists {sets}")
    tables.check_seeds(final, ["model", "task", "r"], study_dir)
    r_small, r_large = int(final["r"].min()), int(final["r"].max())
    choices = []
    for key, rows in final.groupby(["model", "task"], sort=False):
        place = str(key[0]), str(key[1])
        by_rank: dict[int, list[tuple[str, int]]] = {}
        for run in rows.to_dict("records"):
            by_rank.setdefault(run["r"], []).append((run["run_id"], run["seed"]))
        small, large = by_rank.get(r_small, []), by_rank.get(r_large, [])
        if r_small == r_large or not small or len(large) < 2:
            seeds = "; ".join(
                f"r = {r}: seeds {', '.join(str(seed) for _, seed in found)}" for r, found in by_rank.items()
            )
            raise InputError(
                f"{study_dir} needs a run at a small rank (8 in the paper) and two seeds at a large one (64) "
                f"on {place_name(place)}, but it has {seeds}; `{tables.make_command(study_dir)}` trains the "
                f"missing ones"
            )
        first, second = sorted(large[:2], key=lambda run: run[1] == small[0][1])
        # Seeds that the large rank alone has pair with one another, and leave the pairs of ranks as they are.
        ranked = further(small, [first, *large[2 : len(small)], second])
        more = {f"r{r_small}_r{r_large}": ranked, "seeds": pairs(large[2:])}
        choices.append(Choice(place, r_small, r_large, small[0], first, second, more))
    return choices


def further(small: Sequence[tuple[str, int]], large: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """Pairs of a run of each after the first two, of different seeds."""
    return [(one, other) for (one, seed), (other, own) in list(zip(small, large, strict=False))[1:] if seed != own]


def pairs(runs: Sequence[tuple[str, int]]) -> list[tuple[str, str]]:
    """The first run and the second, the third and the fourth, and so on."""
    return [(one, other) for (one, _), (other, _) in zip(runs[::2], runs[1::2], strict=False)]


def stored(data: Data) -> dict[str, Rows]:
    """The grids of the paper's two comparisons, the small rank with the large, and seed with seed, which has a file for
    each side, by the names of their files: complete. Raises InputError if an adapter is needed that is not there, is
    damaged, was not trained, or adapts other modules."""
    found: dict[str, Rows] = {}
    for suffix, choice in data.once(choices).items():
        small, large, other = (run_id for run_id, _ in (choice.small, choice.large, choice.other))
        sides = {choice.ranks: (*SIDES,)} | {f"seeds_{side}": (side,) for side in SIDES}
        for name, of in sides.items():
            first = (small, large) if name == choice.ranks else (large, other)
            # Of further pairs, whose adapters need not have been kept, the side that is judged.
            more = choice.more[name.removesuffix(f"_{JUDGED}")] if JUDGED in of else ()
            rows = found[f"{name}{suffix}"] = Rows(data.folder / f"phi_{name}{suffix}.csv", RUNS, [first, *more])
            for pair in rows.missing:
                if pair == first:
                    rows.add(measure(data, choice, first, of), DIGITS)
                elif all(map(Store(data.runs_dir).has_adapter, pair)):
                    rows.add(measure(data, choice, (pair[0], pair[1]), (JUDGED,)), DIGITS)
    return found


def measure(data: Data, choice: Choice, pair: tuple[str, str], sides: Sequence[str]) -> pd.DataFrame:
    """The rows of the grids between two runs, of some sides."""
    from analysis.weights.sides import compare  # with torch, which tables and figures do without

    about = dict(zip((*RUNS, *PLACE), (*pair, *choice.place), strict=True))
    parts = [
        phi.thin(grid, about | {"weight_type": site.weight_type, "layer": site.layer, "side": side, "dim": dim})
        for (side, site), (grid, dim) in compare(pair, data.folder, data.runs_dir).items()
        if side in sides
    ]
    return pd.concat(parts, ignore_index=True)


def chance(data: Data) -> Rows:
    """phi between random directions, of every shape of grid there is."""
    rows = Rows(data.folder / "phi_gaussian.csv", SHAPE)
    for one in data.once(stored).values():
        sizes = one.frame.groupby(["side", "layer", "weight_type"], sort=False)
        for dim, r_a, r_b in dict.fromkeys((int(own["dim"].iloc[0]), *phi.whole(own).shape) for _, own in sizes):
            if not (rows.frame[SHAPE] == [dim, r_a, r_b]).all(axis=1).any():
                rows.add(gaussian(gaussian_baseline(r_a, r_b, dim), r_a, r_b), DIGITS)
    return rows


def comparisons(data: Data) -> dict[str, tuple[Comparison, Comparison]]:
    """Of each place the comparison of ranks and that of seeds, by the suffix of its files."""
    grids, found = data.once(stored), {}
    for suffix, choice in data.once(choices).items():
        small, large = (rf"{{symbol}}_{{{{r={r}}}}}" for r in (choice.r_small, choice.r_large))
        prime = rf"{{symbol}}'_{{{{r={choice.r_large}}}}}"
        ranks = _first(grids[f"{choice.ranks}{suffix}"].frame)
        seeds = pd.concat([_first(grids[f"seeds_{side}{suffix}"].frame) for side in SIDES], ignore_index=True)
        found[suffix] = (
            Comparison(choice.place, choice.ranks, f"{small}, {large}", *_grids(data, ranks)),
            Comparison(choice.place, "seeds", f"{large}, {prime}", *_grids(data, seeds)),
        )
    return found


def _first(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the grids of several pairs those of the first, which is drawn."""
    return rows[(rows[RUNS] == rows[RUNS].iloc[0]).all(axis=1)]


def over_pairs(rows: pd.DataFrame) -> list[str]:
    """phi(1, 1) over several pairs of runs, as a markdown list item."""
    top = rows[(rows["i"] == 1) & (rows["side"] == JUDGED)].groupby(RUNS, sort=False)["j1"].mean()
    if len(top) < 2:
        return []
    mean = estimates.mean(top)
    text = mean_text(mean.value, mean.half, math.nan, 1, 3)
    return [f"- phi(1, 1) of {JUDGED}, mean over layers and weight types: {text} over {mean.n} pairs of runs."]


def _grids(data: Data, rows: pd.DataFrame) -> tuple[dict[tuple[str, Site], Array], dict[tuple[str, Site], Baseline]]:
    random = functools.cache(functools.partial(baseline, data.once(chance).frame))
    grids, baselines = {}, {}
    for (side, layer, weight_type), own in rows.groupby(["side", "layer", "weight_type"], sort=False):
        key = str(side), Site(str(layer), str(weight_type))
        grids[key] = phi.whole(own)
        baselines[key] = random(int(own["dim"].iloc[0]), *grids[key].shape)
    return grids, baselines


def table(data: Data) -> pd.DataFrame:
    """phi at a few (i, j) of every comparison, of `tabulate`."""
    parts = []
    for choice, found in zip(data.once(choices).values(), data.once(comparisons).values(), strict=True):
        small, large = choice.r_small, choice.r_large
        for comparison, last in zip(found, ((small, large), (large, large)), strict=True):
            parts.append(tabulate(comparison, [(1, 1), (small, small), last]))
    return pd.concat(parts, ignore_index=True)


def sections(data: Data) -> str:
    """For each place and comparison a verdict counted from the numbers, and the numbers."""
    blocks = []
    for suffix, choice in data.once(choices).items():
        small, large = f"r = {choice.r_small}", f"r = {choice.r_large}"
        titles = {
            choice.ranks: f"{small} (seed {choice.small[1]}) and {large} (seed {choice.large[1]})",
            "seeds": f"seeds {choice.large[1]} and {choice.other[1]} of {large}",
        }
        for name, title in titles.items():
            grids = data.once(stored)[f"{choice.ranks if name == choice.ranks else f'seeds_{JUDGED}'}{suffix}"].frame
            own = data.at(dict(zip(PLACE, choice.place, strict=True)) | {"comparison": name})["table.csv"]
            blocks += [
                f"## {place_name(choice.place)}: {title}",
                "\n".join([*verdict(own), *over_pairs(grids)]),
                tables.markdown(by_side(own)),
            ]
            blocks += [tables.markdown(by_site(own))] * (own["layer"].nunique() <= DEEP)
    return "\n\n".join(blocks)


def draw(data: Data, _: Path) -> list[Path]:
    """fig3, fig4, fig6 and fig7 of each place, in four versions."""
    paths = []
    for suffix, (ranks, seeds) in data.once(comparisons).items():
        paths += draw_ranks(ranks, data.folder, suffix) + draw_seeds(seeds, data.folder, suffix)
    return paths


def files(data: Data) -> list[Path]:
    """The measured files."""
    return [rows.path for rows in (*data.once(stored).values(), data.once(chance))]


STUDY = Study(
    runs=load,
    cell=[*PLACE, "r"],
    reads=("phi_*.csv",),
    tables={"table.csv": table},
    numbers="%.4f",
    page=[
        "# Subspace similarity (the paper's Figures 3, 4, 6 and 7)",
        READING,
        sections,
        pages.failed_runs,
    ],
    figures={"fig3.png": draw},
    more=[files],
)
