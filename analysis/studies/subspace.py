"""Which directions do updates of different rank, or of different seed, share: the paper's Figures 3, 4, 6 and 7."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import table_md, tables
from analysis.comparison import Comparison, Place, compare, directions
from analysis.phi_figures import DEEP, draw_ranks, draw_seeds
from analysis.phi_tables import by_side, by_site, tabulate, verdict, write_grids
from lora.config import InputError

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
    """Writes runs.csv, the grids as CSV, table.csv, table.md and the figures; returns their paths.

    Figures of a study with several models or tasks carry these in their names. Raises InputError if runs to compare are
    missing, damaged, untrained, or of different modules.
    """
    runs = tables.load_runs(study_dir, runs_dir).sort_values(
        ["model", "task", "r", "seed", "run_id"], ignore_index=True
    )
    outputs = {name: study_dir / name for name in ("runs.csv", "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    choices, compared, figures, entries = choose(runs, study_dir), [], [], []
    places = [choice.place for choice in choices]
    for choice in choices:
        ranks, seeds = compare_runs(choice, runs_dir)
        suffix = choice.place.suffix(places)
        figures += draw_ranks(ranks, study_dir, suffix) + draw_seeds(seeds, study_dir, suffix)
        small, large = choice.r_small, choice.r_large
        entries += [tabulate(ranks, [(1, 1), (small, small), (small, large)])]
        entries += [tabulate(seeds, [(1, 1), (small, small), (large, large)])]
        compared += [ranks, seeds]
    table = pd.concat(entries, ignore_index=True)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.4f")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    table_md.write(outputs["table.md"], report(choices, table, failed), runs)
    return [*outputs.values(), *write_grids(compared, study_dir), *figures]


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


def compare_runs(choice: Choice, runs_dir: Path) -> tuple[Comparison, Comparison]:
    """The paper's two comparisons: the small rank with the large, and seed with seed."""
    small, large, other = (
        directions(runs_dir / run_id / "adapter") for run_id, _ in (choice.small, choice.large, choice.other)
    )
    at = [rf"{{symbol}}_{{{{r={choice.r_small}}}}}", rf"{{symbol}}_{{{{r={choice.r_large}}}}}"]
    prime = rf"{{symbol}}'_{{{{r={choice.r_large}}}}}"
    ranks = f"r{choice.r_small}_r{choice.r_large}"
    return (
        compare(choice.place, ranks, f"{at[0]}, {at[1]}", small, large),
        compare(choice.place, "seeds", f"{at[1]}, {prime}", large, other),
    )


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
