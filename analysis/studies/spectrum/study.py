"""Spectra and ranks of the update of full fine-tuning and of LoRA, and what they share."""

from collections.abc import Callable

import pandas as pd

from analysis.kit import pages, update_marks, updates
from analysis.kit.data import Data
from analysis.kit.figures import weight_name
from analysis.kit.measured import Rows
from analysis.kit.study import Study
from analysis.kit.updates import ENDS, FEW, PLACE, TOP
from analysis.studies.spectrum import measures, report, schemas

DIGITS = 5
DRAWN = {"stable_rank": "stable rank", "effective_rank": "effective rank", "rank_90": "k for 90% of the energy"}
READING = f"""\
delta_w is (alpha / r) B A, or for full fine-tuning the trained weight less the one it started from. Stable rank:
||delta_w||_F^2 / ||delta_w||_2^2. Effective rank: exp of the entropy of the singular values as shares. k for 90% of the
energy: so many directions have 90% of the squared norm. Intruder dimensions (arXiv 2410.21228): the {TOP} top singular
vectors of W + delta_w are looked at, left and right; one whose |cosine| with every singular vector of W is below 0.4,
0.5 or 0.6 is an intruder; random directions: the same singular values as delta_w's in random directions. phi(k, k):
the share of the top-k directions of the run that lies in the top-k of full fine-tuning with another seed (where there
is but one, of that). Principal angles: between the top directions of two seeds, {FEW} of them or all there are. By
chance: between random subspaces, and the end of the interval that holds 95% of draws. ±: 95% Student-t interval over
(n) seeds of means over layers. Tests are paired over seeds, and corrected for their number by Holm's method."""


def measured(data: Data) -> dict[str, Rows]:
    """The rows of every measured file, complete, by name."""
    each = updates.each(data)
    seeds, full = measures.seed_pairs(each), measures.full_pairs(each)
    wanted = {"ranks": None, "spectra": None, "angles": seeds, "overlap": full}
    keys = {"angles": ["run_id", "other_run_id"], "overlap": ["run_id", "other_run_id"]}
    found = {name: updates.rows(data, f"{name}.csv", keys.get(name, ["run_id"]), of) for name, of in wanted.items()}
    lacking = {run_id for rows in found.values() for key in rows.missing for run_id in key}
    if lacking:
        new = measures.measure(updates.trained(data, lacking), seeds, full)
        for rows, frame in zip(found.values(), new, strict=True):
            rows.add(frame, DIGITS)
    return found


def described(name: str) -> Callable[[Data], pd.DataFrame]:
    """The rows of a measured file with what their runs are."""

    def table(data: Data) -> pd.DataFrame:
        rows = data.once(measured)[name]
        found = updates.described(rows.frame, data, updates.short_names(data.runs))
        if name == "ranks":
            rows.write(found)  # methods may be called otherwise beside others
        return found

    return table


def summary(data: Data) -> pd.DataFrame:
    """A row a place, method and weight type: relative_norm, ||delta_w|| / ||W||, and RANKS, of `kit.updates.means`."""
    rows = data["ranks.csv"]
    rows = rows.assign(relative_norm=rows["norm_delta_w"] / rows["norm_w"])
    return updates.means(rows, [*PLACE, "method", "weight_type"], ["relative_norm", *report.RANKS]).drop(
        columns="layers"
    )


def drawn_spectra(data: Data) -> pd.DataFrame:
    """A panel a weight type."""
    rows = updates.usual_types(data["spectra.csv"])
    return rows.assign(panel=rows["weight_type"].map(weight_name), x=rows["index"], row="share of the largest")


def drawn_ranks(data: Data) -> pd.DataFrame:
    """A panel a kind of rank, a colour a weight type."""
    rows = updates.usual_types(data["ranks.csv"])
    rows = rows.assign(series=rows["weight_type"].map(weight_name))
    return pd.concat([rows.assign(panel=title, value=rows[name]) for name, title in DRAWN.items()])


def drawn_intruders(data: Data) -> pd.DataFrame:
    """A panel an epsilon, the update beside random directions."""
    rows = data.once(report.counted)
    rows = rows.assign(panel=[rf"best $|\cos| < {epsilon}$" for epsilon in rows["epsilon"]])
    series = {"intruders": "the update", "random": "its singular values, random directions"}
    return pd.concat([rows.assign(series=title, value=rows[name]) for name, title in series.items()])


def drawn_overlap(data: Data) -> pd.DataFrame:
    """A panel a side and weight type, k = 1 and FEW."""
    rows = updates.usual_types(data["overlap.csv"]).rename(columns={"phi": "value", "chance_low": "low"})
    rows = rows[rows["k"].isin((1, FEW))].replace({"method": {"full": "full, other seed"}})
    panels = rows["weight_type"].map(weight_name) + ", " + rows["side"].map(ENDS) + "s"
    rows = rows.assign(panel=panels, series=[rf"$\phi({k}, {k})$" for k in rows["k"]], high=rows["chance_high"])
    return rows.sort_values("side", key=lambda sides: sides == "left", kind="stable")


def _four_digits(value: object) -> str:
    # From five, to which the numbers of this table have been rounded from the first: 0.956145 is 0.9562.
    return f"{float(f'{value:.5g}'):.4g}"


STUDY = Study(
    runs=updates.load,
    cell=updates.CELL,
    base=True,
    measures={schema.file: described(schema.file.removesuffix(".csv")) for schema in schemas.ALL},
    tables={"table.csv": summary},
    numbers=_four_digits,
    page=[
        "# Spectra and ranks of the update",
        pages.lines(READING, updates.precision),
        pages.under("## What the runs say", report.findings),
        pages.under("## Ranks", pages.table(report.ranks_table)),
        pages.under(f"## Intruder dimensions: how many of {TOP}", pages.table(report.intruders_table)),
        pages.under("## Directions shared with full fine-tuning", pages.table(report.overlap_table)),
        pages.under("## Two seeds", pages.table(report.angles_table)),
        updates.runs_table,
        pages.failed_runs,
    ],
    figures={
        "spectra.png": update_marks.Curves(
            drawn_spectra, "index of the singular value", "lines: medians over layers and seeds",
            style={"xscale": "log", "yscale": "log", "ylim": (1e-3, 1.3)},
        ),
        "ranks.png": update_marks.Methods(drawn_ranks),
        "intruders.png": update_marks.Methods(drawn_intruders, label=f"intruders of {TOP}", log=False, same=True),
        "overlap.png": update_marks.Methods(
            drawn_overlap, "shared with full", f"{update_marks.SEEDS}; boxes: 95% of random subspaces", same=True
        ),
    },
)  # fmt: skip
