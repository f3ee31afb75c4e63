"""table.md of the spectrum study: what the numbers say, with tests, and the numbers."""

import pandas as pd

from analysis.kit import tables
from analysis.maths import statistics
from analysis.studies.spectrum import tables as spectrum_tables
from analysis.studies.spectrum.measures import FEW, TOP, Measures
from analysis.studies.spectrum.tables import EPSILON, PAIR, place_name
from analysis.weights.update_runs import PLACE

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


def report(measures: Measures, quality: pd.DataFrame, precision: str, failed: list[str]) -> str:
    """The frames of measures have `method`, as of `studies.spectrum.tables.named`."""
    counts = spectrum_tables.intruder_counts(measures.ranks)
    lines = ["# Spectra and ranks of the update", "", READING, precision, "", "## What the runs say", ""]
    lines += [*_rank_lines(measures.ranks), *_intruder_lines(counts), *_overlap_lines(measures.overlap)]
    lines += _angle_lines(measures.angles)
    sections = {
        "Ranks": spectrum_tables.ranks_table(spectrum_tables.ranks_summary(measures.ranks)),
        f"Intruder dimensions: how many of {TOP}": spectrum_tables.intruders_table(counts),
        "Directions shared with full fine-tuning": spectrum_tables.overlap_table(measures.overlap),
        "Two seeds": spectrum_tables.angles_table(measures.angles),
        "Runs": quality,
    }
    for title, table in sections.items():
        if not table.empty:
            lines += ["", f"## {title}", "", tables.markdown(table)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"


def _rank_lines(ranks: pd.DataFrame) -> list[str]:
    tests = spectrum_tables.rank_tests(ranks)
    if tests.empty:
        return []
    decided = tests["p_holm"] < 0.05
    larger, smaller = (int((decided & (sign * tests["difference"] > 0)).sum()) for sign in (1, -1))
    lines = [
        f"- The paper infers a higher intrinsic rank of {PAIR[0]}'s update than of {PAIR[1]}'s, from the directions "
        f"that two seeds share. The effective rank is higher in {larger} of {len(tests)} comparisons (a method on a "
        f"model and task), lower in {smaller}; the others are not decided."
    ]
    for key, cells in tests.groupby(PLACE, sort=False):
        mine = ranks[(ranks[PLACE] == list(key)).all(axis=1)]
        shown = cells[cells["method"].isin(["full", spectrum_tables.largest_lora(mine)])]
        texts = [
            f"{test['method']}: {statistics.difference_text(test['difference'], test['interval'], test['p_holm'], 1)}, "
            f"higher in {test['layers_larger']} of {test['layers']} layers"
            for test in shown.to_dict("records")
        ]
        lines += [f"  - {place_name(key)}: {PAIR[0]} minus {PAIR[1]}, {'; '.join(texts)}."] if texts else []
    return lines


def _intruder_lines(counts: pd.DataFrame) -> list[str]:
    tests, lines = spectrum_tables.intruder_tests(counts), []
    for key, cells in counts[counts["epsilon"] == EPSILON].groupby(PLACE, sort=False):
        means = cells.groupby("method", sort=False)[["intruders", "random"]].mean()
        texts = [f"{method} {row['intruders']:.2f} ({row['random']:.2f})" for method, row in means.iterrows()]
        line = (
            f"- Intruders (best |cosine| below {EPSILON}) among {TOP}, and with random directions in brackets, on "
            f"{place_name(key)}: {', '.join(texts)}."
        )
        mine = tests[(tests[PLACE] == list(key)).all(axis=1)] if len(tests) else tests
        more, fewer = (
            mine.loc[(mine["p_holm"] < 0.05) & (sign * mine["difference"] > 0), "method"].tolist() for sign in (1, -1)
        )
        line += f" More than full fine-tuning: {', '.join(more)}." if more else ""
        line += f" Fewer than full fine-tuning: {', '.join(fewer)}." if fewer else ""
        undecided = len(mine) - len(more) - len(fewer)
        line += f" Not told from full fine-tuning: {undecided} of {len(mine)} methods." if undecided else ""
        lines.append(line)
    return lines


def _overlap_lines(overlap: pd.DataFrame) -> list[str]:
    lines = []
    for key, cells in overlap[overlap["k"] == 1].groupby(PLACE, sort=False):
        parts = []
        for name, of in (
            ("LoRA", cells[cells["label"] != "full"]),
            ("full, of another seed,", cells[cells["label"] == "full"]),
        ):
            if len(of):
                above = int((of["phi"] > of["chance_high"]).sum())
                parts.append(
                    f"{name} shares it above chance in {above} of {len(of)} cases, median phi(1, 1) "
                    f"{of['phi'].median():.2f}"
                )
        chance = cells["chance_mean"].median()
        lines.append(
            f"- The top direction of the full update, on {place_name(key)}: {'; '.join(parts)}; by chance "
            f"{chance:.3f}. A case is a run, layer, weight type and side."
        )
    return lines


def _angle_lines(angles: pd.DataFrame) -> list[str]:
    lines = []
    for key, cells in angles.groupby(PLACE, sort=False):
        below = int((cells["smallest"] < cells["chance_smallest_low"]).sum())
        lines.append(
            f"- Two seeds, on {place_name(key)}: the smallest angle between their top directions is below chance in "
            f"{below} of {len(cells)} cases (2.5% by chance)."
        )
    return lines
