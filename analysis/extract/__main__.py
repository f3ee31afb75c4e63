"""The update of a full checkpoint as a LoRA adapter: of each linear matrix the best approximation of a low rank.

    python -m analysis.extract CHECKPOINT --base MODEL --rank 16 | --energy 0.9 | --params N --out FOLDER

A CHECKPOINT is a model's folder or hub id, a file of its weights, or a run of full fine-tuning (whose base is known).
Matrices are read one at a time, also from sharded files. --rank is one rank for all; with --energy and --params the
largest singular values over all matrices are kept, of at most --most of each. What LoRA cannot hold (norms, biases,
embeddings, new heads) is listed with its norm in beside.csv, and stored beside the adapter with --keep-others. Writes
the adapter, and beside it extract.md and extract.csv, what was kept where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from analysis.adapters import account, made, ranks
from analysis.adapters.ranks import Wish
from analysis.extract import names, others
from analysis.extract.names import Names
from analysis.extract.updates import Extracted, extract_all
from analysis.weights import beside, sources
from analysis.weights.pairs import Pair, pair
from analysis.weights.pretrained import Weights
from analysis.weights.run_base import Start
from experiments.arguments import Parser, program, whole
from lora.config import InputError
from lora.stored import Adapter

DTYPES = ("float32", "bfloat16", "float16")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog=program("analysis.extract"), description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="model folder, hub id, file of weights, or run")
    ranks.add_options(parser)
    parser.add_argument("--base", metavar="MODEL", help="the base model: folder, hub id or asset:NAME")
    parser.add_argument(
        "--most", type=whole, default=128, help="rank of a matrix at most, with --energy and --params (%(default)s)"
    )
    parser.add_argument(
        "--tolerance", type=float, default=1e-3,
        help="residual of a singular triplet, as a share of the largest singular value (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--keep-others", action="store_true", help="store beside the adapter what LoRA cannot hold")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of A and B (%(default)s)")
    parser.add_argument("--format", choices=made.FORMATS, help="of what is written (default: peft; own, of a run)")
    parser.add_argument("--runs", type=Path, default=Path("results/runs"), help="where run ids are (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, empty or not there")
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.tolerance < 1:
        raise InputError(f"--tolerance {chosen.tolerance:g}: it must be above 0 and below 1")
    return chosen


def extract(options: argparse.Namespace) -> list[Path]:
    """Write the adapter and its account, and print the account; returns the paths, the page first.

    Raises InputError for a checkpoint that is missing, damaged, quantised, an adapter, not for the base model, or equal
    to it, for a wish that cannot be met, and for a folder that is not empty.
    """
    wish = Wish.of(options)
    made.check_empty(options.out)
    found = sources.find(sources.place(options.checkpoint, options.runs))
    both = _pair(found, options.base)
    named = names.of_model if isinstance(found.stored, Weights) else names.of_file
    own, there = named(both.tuned), both.base.linear
    layout = options.format or (made.OWN if found.run else made.PEFT)
    modules = {
        module: stored for module, stored in both.tuned.linear.items() if module in there and stored in own.stored
    }
    rest = beside.of_checkpoint(both.tuned, both.base, found.library == sources.SUITE, set(modules.values()))
    kept = others.kept(both.tuned, rest.rows, own) if options.keep_others else {}
    result = extract_all(
        both, {module: own.module(stored) for module, stored in modules.items()}, wish, options.most, options.tolerance,
        lambda found: tqdm(found, disable=None, leave=False, unit="matrix"),
    )  # fmt: skip
    factors = result.adapters(getattr(torch, options.dtype))
    adapter = others.with_rest(factors, kept, both.tuned, own, layout, both.base.source)
    file = made.write(adapter, layout, options.out, both.base)
    return [*_publish(options, found.name, own, both, result, rest, set(kept), file), file]


def _pair(found: sources.Source, given: str | None) -> Pair:
    """The checkpoint and its base. Raises InputError for an adapter."""
    if isinstance(found.stored, Adapter):
        raise InputError(f"{found.name} is an adapter already: use python -m analysis.shrink on it")
    base = Weights.open(given) if given else None
    if found.run:
        base = Start.of(found.run).base(base)
    return pair(found.name, found.stored, base)


def _publish(
    options: argparse.Namespace,
    name: str,
    own: Names,
    both: Pair,
    result: Extracted,
    rest: beside.Account,
    kept: set[str],
    file: Path,
) -> list[Path]:
    table = account.modules(result.targets, result.spectra, result.ranks, [d * k for d, k in result.shapes])
    rows = pd.DataFrame(
        [row._asdict() | {"shape": " x ".join(map(str, row.shape)), "kept": row.name in kept} for row in rest.rows],
        columns=[*beside.Beside._fields, "kept"],
    )
    left = [row for row in rest.rows if row.name not in kept]
    lines = [
        f"{name} less {both.base.source}, {Wish.of(options)}: {account.size(file)} of tensors, for {own.model}",
        f"singular triplets to a residual of {options.tolerance:g} of each matrix's largest singular value",
        *account.dropped(table),
        *([f"unchanged, and without an adapter: {account.some(result.unchanged)}"] if result.unchanged else []),
        *([f"stored beside the adapter: {account.some(sorted(kept))}"] if kept else []),
        *([f"NOT in the adapter, though changed: {account.some(list(map(others.described, left)))}"] if left else []),
        *rest.notes,
        *both.notes,
    ]
    return account.publish("extract", table, account.MATRICES, lines, {"beside": rows}, options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 for bad input."""
    try:
        paths = extract(parse(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {paths[-1].parent}: {', '.join(path.name for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
