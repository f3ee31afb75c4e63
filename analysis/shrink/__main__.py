"""An adapter made smaller: the best approximation of each update, of a lower rank, without training.

    python -m analysis.shrink ADAPTER --rank 8 | --energy 0.95 | --params N --out FOLDER [--format own|peft]

An ADAPTER is a run's id or folder, an adapter of this suite, a peft adapter (folder or hub id), or a loralib checkpoint
(--alpha). --rank is one rank for all modules; with --energy and --params the largest singular values over all modules
are kept, so that ranks differ. All else that was trained (heads, biases, embeddings) is kept as it is, and so is the
precision. --task measures what is lost on a task's validation data. Writes the adapter, and beside it shrink.md and
shrink.csv, what was kept where.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.adapters import account, made, ranks
from analysis.adapters.ranks import Wish
from analysis.shrink import stored
from analysis.weights import sources, updates
from analysis.weights.pretrained import Weights
from analysis.weights.run_base import Start
from experiments.arguments import Parser, program
from lora.config import InputError


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog=program("analysis.shrink"), description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "adapter", metavar="ADAPTER", help="run, adapter of this suite, peft adapter, loralib checkpoint"
    )
    ranks.add_options(parser)
    sources.add_options(parser)
    parser.add_argument("--format", choices=made.FORMATS, help="of what is written (default: that of ADAPTER, or own)")
    parser.add_argument("--task", help="a task or data file, on whose validation data both adapters are measured")
    parser.add_argument(
        "--settings", nargs="*", default=[], metavar="FIELD=VALUE", help="of the task, as of experiments.run"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write, empty or not there")
    chosen = parser.parse_args(arguments)
    sources.check_options(chosen)
    return chosen


def shrink(options: argparse.Namespace) -> list[Path]:
    """Write the smaller adapter and its account, and print the account; returns the paths, the page first.

    Raises InputError for an adapter that is missing, damaged, of DoRA, or not for the base model, for a wish that
    cannot be met, and for a folder that is not empty.
    """
    wish = Wish.of(options)
    made.check_empty(options.out)
    base = Weights.open(options.base) if options.base else None
    place = sources.place(options.adapter, options.runs)
    found = sources.find(place, base, options.alpha, options.slices)
    adapter, start = stored.read(found), Start.of(found.run) if found.run else None
    updates.of_source(found, base)  # raises, if it is not for the base model
    layout = options.format or (made.PEFT if found.library == sources.PEFT else made.OWN)
    spectra = [adapter.spectrum(target) for target in adapter.targets]
    chosen = ranks.choose(spectra, wish)
    small = adapter.cut(chosen, layout)
    scores = []
    if options.task:
        from analysis.shrink import quality  # the task's libraries take seconds

        scores = quality.compare(adapter.file, small, options.task, options.settings, options.base, start)
    if base is None and start and layout == made.PEFT:
        base = start.base(None)
    file = made.write(small, layout, options.out, base)
    sizes = [target.r * sum(target.shape) for target in adapter.targets]
    table = account.modules(adapter.targets, spectra, chosen, sizes)
    before = adapter.file.file.path
    lines = [
        f"{found.name}, {wish}: {account.size(before)} of tensors before, {account.size(file)} now ({layout} format)",
        *scores,
        *account.dropped(table),
        *([f"kept as trained: {account.some(list(small.parameters))}"] if small.parameters else []),
        *adapter.left(layout),
    ]
    return [*account.publish("shrink", table, account.FACTORS, lines, {}, options.out), file]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 for bad input."""
    try:
        paths = shrink(parse(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {paths[-1].parent}: {', '.join(path.name for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
