"""Records of a study's runs: pack, unpack, verify; prune what tables do not need, export runs to a tracker.

python -m experiments.records pack results/desk/rank_ablation
python -m experiments.records verify results/desk
python -m experiments.records unpack /mnt/cluster/results/desk/rank_ablation --results results
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments import trackers
from experiments.arguments import Parser, finish, program
from experiments.listing import SWEEP
from experiments.records import archive, transfer
from experiments.records import export as exporting
from experiments.records import prune as pruning
from lora.config import InputError

MB = 10**6


def _parser() -> Parser:
    parser = Parser(prog=program("experiments.records"), description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    studies = {
        "pack": "write records.jsonl.gz of a study from its stored runs",
        "unpack": "store the runs of records.jsonl.gz, without adapters; runs that are stored stay as they are",
        "verify": "check that each record is whole, and its config that of its run_id",
    }
    for name, text in studies.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("study_dir", nargs="+", type=Path, help="results/<preset>/<study>, or results/<preset>")
        if name != "verify":
            where = "the results folder (default: STUDY_DIR/../..)"
            command.add_argument("--results", type=Path, metavar="FOLDER", help=where)
        if name == "pack":
            text = "of the runs that the last sweep lists alone: what else is recorded is left out"
            command.add_argument("--anew", action="store_true", help=text)
    text = "remove the adapters of all runs that studies list, whose records are packed first"
    command = commands.add_parser("prune", help=text, description=text)
    command.add_argument("runs", nargs="+", type=Path, help="results/runs")
    command.add_argument("--unlisted", action="store_true", help="in place of adapters, runs that no study lists")
    command.add_argument("--yes", action="store_true", help="do it; otherwise it is only listed")
    text = "write runs for a tracker to show, each once, under its run id"
    command = commands.add_parser("export", help=text, description=text)
    command.add_argument(
        "folder", nargs="+", type=Path, help="results/<preset>, a study's folder in it, or results/runs"
    )
    command.add_argument("--to", choices=list(trackers.TRACKERS), required=True)
    command.add_argument("--out", type=Path, metavar="FOLDER", required=True)
    return parser


def _studies(options: Namespace, *names: str) -> Iterator[Path]:
    """The study folders that are given; for a folder that has none of the files `names`, those in it that have."""
    for given in map(Path.resolve, options.study_dir):
        inner = sorted({path.parent for name in names for path in given.glob(f"*/{name}")})
        yield from [given] if any((given / name).is_file() for name in names) else inner or [given]


def pack(options: Namespace) -> None:
    """Pack each study, and say where."""
    for study_dir in _studies(options, SWEEP):
        path = transfer.pack(study_dir, (options.results or study_dir.parent.parent) / "runs", options.anew)
        print(f"{path}: {len(archive.read(path))} runs, {path.stat().st_size / 1000:.0f} kB")


def unpack(options: Namespace) -> None:
    """Unpack each study, and say what became of its runs."""
    for study_dir in _studies(options, archive.ARCHIVE):
        results = options.results or study_dir.parent.parent
        found = transfer.unpack(study_dir, results)
        print(f"{study_dir}: {len(found.new)} runs stored in {results / 'runs'}, {len(found.known)} were stored there")
        for run_id, changes in found.other:
            print(f"  run {run_id} is stored with other results, and stays: {changes}")


def verify(options: Namespace) -> None:
    """Check each study. Raises InputError if a record is wrong, after a line for each that is."""
    wrong = 0
    for study_dir in _studies(options, archive.ARCHIVE):
        records, faults = archive.scan(study_dir / archive.ARCHIVE)
        for fault in faults:
            print(f"error: {fault}", file=sys.stderr)
        wrong += len(faults)
        rebuilt = sum(record.rebuilt is not None for record in records)
        about = f", {rebuilt} of them rebuilt from tables" if rebuilt else ""
        print(f"{study_dir}: {len(records)} sound records{about}")
    if wrong:
        raise InputError(f"{wrong} of the records are wrong: get the files anew, or pack the studies again")


def prune(options: Namespace) -> None:
    """List, or with --yes remove, what can go."""
    for runs_dir in map(Path.resolve, options.runs):
        found = (pruning.prune if options.yes else pruning.plan)(runs_dir, options.unlisted)
        for freed in found:
            print(f"{freed.size / MB:10.1f} MB  {freed.folder}")
        what = "runs that no study lists" if options.unlisted else "adapters"
        total = f"{sum(freed.size for freed in found) / MB:.1f} MB in {len(found)} {what}"
        print(f"{runs_dir}: {total} freed" if options.yes else f"{runs_dir}: {total} can be freed; --yes does it")


def export(options: Namespace) -> None:
    """Export the runs of each folder, and say how many are new."""
    for folder in map(Path.resolve, options.folder):
        written = [exporting.export(run, options.to, options.out) for run in exporting.runs_in(folder)]
        print(f"{folder}: {sum(written)} runs written to {options.out}, {written.count(False)} were there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""

    def work() -> None:
        options = _parser().parse_args(arguments)
        done = {"pack": pack, "unpack": unpack, "verify": verify, "prune": prune, "export": export}
        done[options.command](options)

    return finish(work, "what is done stays")


if __name__ == "__main__":
    sys.exit(main())
