"""Adapters side by side: what each adds to its base model, and how alike their updates are.

    python -m analysis.compare ADAPTER [ADAPTER …] [--base MODEL] [--alpha A] [--slices q+v] [--top K] [--out FOLDER]

An ADAPTER is a run's id or folder, an adapter of this suite, a peft adapter (folder or hub id), a loralib checkpoint,
or a full checkpoint (a model's folder, hub id, asset:NAME or a file of weights), of which ΔW is the difference to
--base. Writes summary.csv, modules.csv, pairs.csv, beside.csv (what else they store), pictures, and compare.md, which
shows them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
from tabulate import tabulate
from tqdm import tqdm

from analysis.compare import figures
from analysis.compare.measures import SAME_NORM, Measured, Module, match, measure
from analysis.compare.page import Pair, coverage, page
from analysis.compare.tables import (
    beside_cells,
    beside_rows,
    cosine_cells,
    phi_cells,
    summarise,
    summary_cells,
    verdict,
)
from analysis.kit.safe import make_safe
from analysis.weights import sources
from analysis.weights.pretrained import Weights
from analysis.weights.updates import Updates, read
from experiments.arguments import Parser, program, whole
from lora.config import InputError

PAIR_COLUMNS = [
    "first", "second", "module", "layer", "weight_type", "cosine", "cosine_chance", "side", "i", "j", "phi", "chance",
    "chance_low", "chance_high", "above_chance",
]  # fmt: skip


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog=program("analysis.compare"), description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("adapters", nargs="+", metavar="ADAPTER", help="run, adapter, peft, loralib, full checkpoint")
    sources.add_options(parser)
    parser.add_argument("--top", type=whole, default=64, metavar="K", help="directions that are compared (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/compare"), help="folder to write (%(default)s)")
    chosen = parser.parse_args(arguments)
    sources.check_options(chosen)
    return chosen


def read_all(options: argparse.Namespace, base: Weights | None) -> list[Updates]:
    """The updates of every source, each with a name of its own. Raises InputError as `weights.updates.read`."""
    places = [sources.place(source, options.runs) for source in options.adapters]
    found = [read(place, base, options.alpha, options.slices) for place in places]
    for updates, name in zip(found, distinct([updates.name for updates in found]), strict=True):
        updates.name = name
    return found


def distinct(names: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart; what is there twice gets a number."""
    parts = [name.rstrip("/").split("/") for name in names]
    length = 1
    while length < max(map(len, parts)) and len({tuple(part[-length:]) for part in parts}) < len(
        set(map(tuple, parts))
    ):
        length += 1
    short = ["/".join(part[-length:]) for part in parts]
    return [
        f"{name} ({short[:index].count(name) + 1})" if name in short[:index] else name
        for index, name in enumerate(short)
    ]


def compare(options: argparse.Namespace) -> list[Path]:
    """Write the tables, pictures and page of a command line, print the summary; returns the paths, the page first.

    Raises InputError if a source is missing, damaged, or not for the base model.
    """
    base = Weights.open(options.base) if options.base else None
    adapters = read_all(options, base)
    names = [adapter.name for adapter in adapters]
    modules = match(adapters)
    couples = list(combinations(range(len(adapters)), 2))
    shared = {couple: [m for m in modules if set(couple) <= set(m.updates)] for couple in couples}
    middle = {couple: figures.middle_layer(found) for couple, found in shared.items()}
    measured: list[Measured] = []
    for module in tqdm(modules, disable=None, leave=False, unit="module"):
        one = measure(module, names, options.top, base)
        drawn = {key: grid for key, grid in one.grids.items() if middle[key[:2]] == module.layer}
        measured.append(one._replace(grids=drawn))
    accounts = [adapter.account() for adapter in adapters]
    alone = pd.DataFrame([row for one in measured for row in one.rows])
    together = pd.DataFrame([row for one in measured for row in one.pairs], columns=PAIR_COLUMNS)
    rest = beside_rows(names, accounts)
    summary = summarise(adapters, alone, rest)
    pairs = [_pair(couple, names, modules, alone, together) for couple in couples]
    options.out.mkdir(parents=True, exist_ok=True)
    tables = {"summary": summary, "modules": alone, "pairs": together, "beside": rest}
    for name, table in tables.items():
        table.to_csv(options.out / f"{name}.csv", index=False, float_format="%.6g")
    pictures = _draw(names, couples, pairs, measured, options.out)
    path = options.out / "compare.md"
    path.write_text(
        page(adapters, accounts, summary, alone, rest, pairs, pictures, options.base, options.top), encoding="utf-8"
    )
    _report(summary, rest, pairs)
    make_safe([path, *(options.out / f"{name}.csv" for name in tables)])
    drawn_files = [file for files in pictures.values() for file in files]
    return [path, *(options.out / f"{name}.csv" for name in tables), *drawn_files]


def _pair(
    couple: tuple[int, int],
    names: Sequence[str],
    modules: Sequence[Module],
    alone: pd.DataFrame,
    together: pd.DataFrame,
) -> Pair:
    one, two = couple
    first, second = names[one], names[two]
    norms = alone.pivot(index=["module", "weight_type", "d", "k"], columns="adapter", values="norm_w")
    known = norms[[first, second]].dropna()
    return Pair(
        first,
        second,
        [m for m in modules if one in m.updates and two in m.updates],
        [m for m in modules if one in m.updates and two not in m.updates],
        [m for m in modules if two in m.updates and one not in m.updates],
        int((abs(known[first] - known[second]) > SAME_NORM * known[first]).sum()),
        together[(together["first"] == first) & (together["second"] == second)],
    )


def _draw(
    names: Sequence[str],
    couples: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    measured: Sequence[Measured],
    out: Path,
) -> dict[tuple[str, ...], list[Path]]:
    """The pictures of each adapter and of each pair."""
    slugs = distinct([re.sub(r"\W+", "_", name).strip("_")[-40:] for name in names])
    slugs = [slug.replace(" ", "").replace("(", "_").rstrip(")") for slug in slugs]
    found: dict[tuple[str, ...], list[Path | None]] = {}
    for index, name in enumerate(names):
        found[(name,)] = [figures.draw_spectra(index, name, measured, out / f"spectra_{slugs[index]}.png")]
    for (one, two), pair in zip(couples, pairs, strict=True):
        tail, title = f"{slugs[one]}_{slugs[two]}.png", f"{names[one]} and {names[two]}"
        overview = figures.draw_chance(pair.rows, title, out / f"chance_{tail}") if len(pair.rows) else None
        grid = figures.draw_phi(one, two, names, measured, out / f"phi_{tail}")
        found[pair.first, pair.second] = [overview, grid]
    return {key: [path for path in paths if path] for key, paths in found.items()}


def _report(summary: pd.DataFrame, rest: pd.DataFrame, pairs: Sequence[Pair]) -> None:
    print(tabulate(summary_cells(summary).to_dict("list"), headers="keys", disable_numparse=True))
    if len(rest):
        print("", "Beside the updates of weight matrices:", sep="\n")
        print(tabulate(beside_cells(rest).to_dict("list"), headers="keys", disable_numparse=True))
    for pair in pairs:
        print("", f"{pair.first} and {pair.second}", *coverage(pair), sep="\n")
        if len(pair.rows):
            print(*verdict(pair.rows), "", sep="\n")
            for table in (phi_cells(pair.rows), cosine_cells(pair.rows)):
                print(tabulate(table.to_dict("list"), headers="keys", disable_numparse=True), end="\n\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 for bad input."""
    try:
        paths = compare(parse(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {paths[0]}, and beside it {', '.join(path.name for path in paths[1:])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
