"""The page on adapters side by side, as markdown, and what the command line prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.compare import tables as cells
from analysis.compare.measures import Module
from analysis.kit.tables import markdown
from analysis.maths.amplification import DENSE
from analysis.weights.beside import Account
from analysis.weights.updates import Updates

READING = """\
- ΔW is what an adapter, or fine-tuning, adds to a weight matrix W. Norms are Frobenius norms; layers count from 0;
tables by weight type have the median [smallest, largest] over the layers.
- φ(i, j) is the share of the top-i singular vectors of one ΔW that lies in the top-j of the other (or the reverse, if
j < i), from 0 to 1 (Hu et al. 2021, Section 7.2). Right singular vectors are directions of the input, left ones of the
output; n is the smaller of the two ranks, {top} at most.
- Chance: mean [95% interval] between random directions, at the same i, j and dimension. Two adapters whose A started
from the same random numbers share directions on the right before any training.
- The cosine is <ΔW, ΔW'> / (‖ΔW‖ ‖ΔW'‖). Between updates turned at random it has mean 0 and the standard deviation
1/√(d k); chance is given as {far} of these either way.
- Stable rank: ‖ΔW‖² / σ₁². Effective rank: exp of the entropy of σ / Σσ; not computed for differences of weights with
more than {dense} rows and columns."""
BESIDE = """\
What is stored too: modules trained whole, biases, embeddings, magnitudes. It is in none of the measures above. ‖P‖ is
the norm of the stored tensor, ‖ΔP‖ that of its difference to the base model's. All rows are in `beside.csv`."""
AMPLIFICATION = """\
- Amplification is ‖ΔW‖ / ‖UᵀWV‖, U and V the top left and right singular vectors of ΔW, {top} at most (Section 7.3):
how much stronger the update is than W in the update's own directions. ‖UᵀWV‖ for random U and V is the root of its
mean square. W is read from `{base}`."""


class Pair(NamedTuple):
    """Two adapters, by name: the modules that both change, and those that one alone does; their rows of pairs.csv.

    other_w: the number of shared modules of which both adapters know ||W||_F, and not the same.
    """

    first: str
    second: str
    shared: list[Module]
    only_first: list[Module]
    only_second: list[Module]
    other_w: int
    rows: pd.DataFrame


def coverage(pair: Pair) -> list[str]:
    """Which modules two adapters share and which not, and signs that their base models differ, as list items."""
    groups = (("Both", pair.shared), (f"Only `{pair.first}`", pair.only_first),
              (f"Only `{pair.second}`", pair.only_second))  # fmt: skip
    lines = [f"- {who}: {_count(modules)}." for who, modules in groups if modules or who == "Both"]
    first, second = ({(x.layer, x.weight_type) for x in only} for only in (pair.only_first, pair.only_second))
    if first & second:
        lines.append(
            f"- {len(first & second)} have the same layer and weight type in both, but not the same name or shape: are "
            "the base models the same?"
        )
    if pair.other_w:
        lines.append(
            f"- In {pair.other_w} of the shared modules W had not the same norm: these adapters were trained on "
            "different base models."
        )
    return lines


def _count(modules: Sequence[Module]) -> str:
    number = f"{len(modules)} module{'' if len(modules) == 1 else 's'}"
    return f"{number} ({cells.abbreviate(modules)})" if modules else "no module: nothing can be compared"


def page(
    adapters: Sequence[Updates],
    accounts: Sequence[Account],
    summary: pd.DataFrame,
    modules: pd.DataFrame,
    rest: pd.DataFrame,
    pairs: Sequence[Pair],
    pictures: Mapping[tuple[str, ...], Sequence[Path]],
    base: str | None,
    top: int,
) -> str:
    """compare.md. `pictures`: those of an adapter, by its name, and of a pair, by both."""
    lines = ["# Adapters side by side" if len(adapters) > 1 else f"# {adapters[0].name}", ""]
    notes = [
        f"- `{adapter.name}`: {note}."
        for adapter, account in zip(adapters, accounts, strict=True)
        for note in (*adapter.notes, *account.notes)
    ]
    lines += [markdown(cells.summary_cells(summary))] + (["", *notes] if notes else [])
    for pair in pairs:
        lines += ["", f"## {pair.first} and {pair.second}", "", *coverage(pair)]
        if len(pair.rows):
            lines += [*cells.verdict(pair.rows), "", markdown(cells.phi_cells(pair.rows))]
            lines += ["", markdown(cells.cosine_cells(pair.rows))]
        elif pair.shared:
            lines += ["- In each of these one of the two updates is zero: there are no directions to compare."]
        lines += _linked(pictures.get((pair.first, pair.second), ()))
    lines += ["", "## Each adapter", "", markdown(cells.by_type(modules))]
    for adapter in adapters:
        lines += _linked(pictures.get((adapter.name,), ()))
    if len(rest):
        lines += ["", "## Beside the updates of weight matrices", "", BESIDE, "", markdown(cells.beside_cells(rest))]
    lines += ["", "## How to read this", "", READING.format(top=top, far=cells.FAR, dense=DENSE)]
    lines += [AMPLIFICATION.format(top=top, base=base)] if base else []
    return "\n".join(lines) + "\n"


def _linked(paths: Sequence[Path]) -> list[str]:
    return [line for path in paths for line in ("", f"![{path.stem.replace('_', ' ')}]({path.name})")]
