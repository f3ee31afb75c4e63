"""Which directions do updates of different rank, or of different seed, share: the paper's Figures 3, 4, 6 and 7."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.kit import measured, table_md, tables
from analysis.kit.phi_figures import DEEP, draw_ranks, draw_seeds
from analysis.kit.phi_grids import thin, whole
from analysis.maths.subspace import Baseline, gaussian_baseline
from analysis.studies.subspace.tables import baseline, by_side, by_site, gaussian, tabulate, verdict
from analysis.weights import update_runs
from analysis.weights.comparison import SIDES, Comparison, Place, Site, compare, directions
from lora.config import InputError

MEASURED = ("phi_*.csv",)
SHAPE = ["dim", "r_a", "r_b"]
DIGITS = 5
READING = """\
phi(i, j) is the share of the top-i directions of one run that lies in the top-j of the other (or the reverse, if
j < i), from 0 to 1: its median over layers, and (the smallest to the largest). Above chance, or `*`: above the interval
that holds 95% of draws between random Gaussian matrices. Layers count from 0; table.csv has every layer. Figures are
made from A, as in the paper (right singular vectors: directions of the input), from B (left: of the output), and from
the right and left singular vectors of delta_w. Ranks are compared between different seeds: with one seed, the first
module's A starts from the same random numbers at every rank, and the smaller is part of the larger before any
training."""


class Choice(NamedTuple):
    """The runs that are compared, as (run_id, seed): one at r_small, and two seeds at r_large."""

    place: Place
    r_small: int
    r_large: int
    small: tuple[str, int]
    large: tuple[str, int]
    other: tuple[str, int]


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Measures what the grids, phi_….csv, lack. Writes runs.csv, table.csv, table.md and the figures from them. Returns
    their paths.

    Files of a study with several models or tasks carry these in their names. Raises InputError if runs to compare are
    missing, or, where they are not measured yet, their adapters missing, damaged, untrained, or of different modules.
    """
    runs = tables.load_runs(study_dir, runs_dir).sort_values(
        ["model", "task", "r", "seed", "run_id"], ignore_index=True
    )
    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    choices, figures, entries = choose(runs, study_dir), [], []
    places = [choice.place for choice in choices]
    chance = measured.Rows(study_dir / "phi_gaussian.csv", SHAPE)
    paths = [chance.path]
    for choice in choices:
        suffix = choice.place.suffix(places)
        stored = measure(choice, suffix, study_dir, runs_dir)
        paths += [rows.path for rows in stored]
        ranks, seeds = compared(choice, stored, chance)
        figures += draw_ranks(ranks, study_dir, suffix) + draw_seeds(seeds, study_dir, suffix)
        small, large = choice.r_small, choice.r_large
        entries += [tabulate(ranks, [(1, 1), (small, small), (small, large)])]
        entries += [tabulate(seeds, [(1, 1), (small, small), (large, large)])]
    table = pd.concat(entries, ignore_index=True)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.4f")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs["table.md"], report(choices, table, failed), runs)
    return [*outputs.values(), *paths, *figures]


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
        place = Place(*map(str, key))
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
                f"on {place.task} ({place.model}), but it has {seeds}; `{tables.make_command(study_dir)}` trains the "
                f"missing ones"
            )
        first, second = sorted(large[:2], key=lambda run: run[1] == small[0][1])
        choices.append(Choice(place, r_small, r_large, small[0], first, second))
    return choices


def measure(choice: Choice, suffix: str, study_dir: Path, runs_dir: Path) -> list[measured.Rows]:
    """The grids of the paper's two comparisons, the small rank with the large, and seed with seed, which has a file for
    each side."""
    small, large, other = (run_id for run_id, _ in (choice.small, choice.large, choice.other))
    name = f"r{choice.r_small}_r{choice.r_large}"
    names = [name, *(f"seeds_{side}" for side in SIDES)]
    pairs = [(small, large)] + [(large, other)] * len(SIDES)
    stored = [
        measured.Rows(study_dir / f"phi_{name}{suffix}.csv", ["run_id", "other_run_id"], [pair])
        for name, pair in zip(names, pairs, strict=True)
    ]
    for pair in dict.fromkeys(key for rows in stored for key in rows.missing):
        first, second = (directions(update_runs.adapter(run_id, study_dir, runs_dir)) for run_id in pair)
        grids = compare(choice.place, name if pair == pairs[0] else "seeds", first, second)
        about = dict(zip(("run_id", "other_run_id"), pair, strict=True)) | choice.place._asdict()
        for rows, title in zip(stored, names, strict=True):
            if pair in rows.missing:
                parts = [
                    thin(
                        grid, about | {"weight_type": site.weight_type, "layer": site.layer}
                        | {"side": side, "dim": len(first[side, site])},
                    )
                    for (side, site), grid in grids.items()
                    if title in (name, f"seeds_{side}")
                ]  # fmt: skip
                rows.add(pd.concat(parts, ignore_index=True), DIGITS)
    return stored


def compared(choice: Choice, stored: list[measured.Rows], chance: measured.Rows) -> tuple[Comparison, Comparison]:
    """The two comparisons of stored grids, beside chance, of which what is not stored yet is computed."""
    at = [rf"{{symbol}}_{{{{r={r}}}}}" for r in (choice.r_small, choice.r_large)]
    prime = rf"{{symbol}}'_{{{{r={choice.r_large}}}}}"
    ranks, seeds = stored[0].frame, pd.concat([rows.frame for rows in stored[1:]], ignore_index=True)
    return (
        _comparison(choice, f"r{choice.r_small}_r{choice.r_large}", f"{at[0]}, {at[1]}", ranks, chance),
        _comparison(choice, "seeds", f"{at[1]}, {prime}", seeds, chance),
    )


def _comparison(choice: Choice, name: str, label: str, rows: pd.DataFrame, chance: measured.Rows) -> Comparison:
    grids, baselines = {}, {}
    known: dict[tuple[int, ...], Baseline] = {}
    for (side, layer, weight_type), cells in rows.groupby(["side", "layer", "weight_type"], sort=False):
        key = str(side), Site(str(layer), str(weight_type))
        grids[key] = whole(cells)
        shape = int(cells["dim"].iloc[0]), *grids[key].shape
        if shape not in known:
            dim, r_a, r_b = shape
            if not (chance.frame[SHAPE] == list(shape)).all(axis=1).any():
                chance.add(gaussian(gaussian_baseline(r_a, r_b, dim), r_a, r_b), DIGITS)
            known[shape] = baseline(chance.frame, dim, r_a, r_b)
        baselines[key] = known[shape]
    return Comparison(choice.place, name, label, grids, baselines)


def report(choices: list[Choice], table: pd.DataFrame, failed: list[str]) -> str:
    """table.md: for each place and comparison a verdict counted from the numbers, and the numbers."""
    lines = ["# Subspace similarity (the paper's Figures 3, 4, 6 and 7)", "", READING]
    for choice in choices:
        mine = (table[["model", "task"]] == list(choice.place)).all(axis=1)
        for name, cells in table[mine].groupby("comparison", sort=False):
            if name == "seeds":
                title = f"seeds {choice.large[1]} and {choice.other[1]} of r = {choice.r_large}"
            else:
                title = (
                    f"r = {choice.r_small} (seed {choice.small[1]}) and r = {choice.r_large} (seed {choice.large[1]})"
                )
            place = f"{choice.place.task} ({choice.place.model})"
            lines += ["", f"## {place}: {title}", "", *verdict(cells), "", tables.markdown(by_side(cells))]
            if cells["layer"].nunique() <= DEEP:
                lines += ["", tables.markdown(by_site(cells))]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"
