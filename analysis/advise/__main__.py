"""Which rank, which weight types, which learning rate? A few trainings at a large rank, cut, in place of a sweep.

    python -m analysis.advise --model minilm --task rotten_tomatoes --preset desk
    python -m analysis.advise --model FOLDER --task reviews.csv --budget 20m --margin 0.5 --confirm

Says first what it will take, finds the learning rate at the largest rank, cuts what that has learnt, and recommends the
cheapest adapter that is within a margin of it. Validation data alone are read, until --confirm reads the test set.
Writes advice.md, advice.json, advice.png and settings to paste. What was trained stays: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # Ctrl-C while the rest is imported: nothing was begun
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from experiments.arguments import Parser, program
from experiments.arguments import finish as ended
from lora.errors import InputError

if TYPE_CHECKING:
    from analysis.advise.advice import Advice
    from analysis.advise.subject import Subject


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog=program("analysis.advise"), description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="minilm", help="a name in experiments/conf, a hub id, a folder")
    parser.add_argument("--task", default="rotten_tomatoes", help="a name in experiments/conf, a CSV or JSONL file")
    parser.add_argument("--preset", default="quick", help="sizes: smoke, quick, desk, paper")
    parser.add_argument("--budget", default="", help="a time, as 20m, or a number of runs (default: no limit)")
    parser.add_argument("--margin", default="0.5", help="points below the largest, or 5%% of the gain over the head")
    parser.add_argument("--rates", default="", help="learning rates to try, as 1e-4,1e-3 (default: 1e-4 to 3e-2)")
    parser.add_argument("--confirm", action="store_true", help="train the advice and its rivals, read the test set")
    parser.add_argument("--heal", action="store_true", help="look at lower ranks after a tenth of the steps more")
    parser.add_argument("--results", default="results", help="where runs are stored")
    parser.add_argument("--out", type=Path, help="folder (default: RESULTS/advice/<model>_<task>)")
    parser.add_argument("settings", nargs="*", metavar="FIELD=VALUE", help="further settings of runs")
    return parser.parse_intermixed_args(arguments)


def advise(options: argparse.Namespace) -> list[Path]:
    """Does what the command says; returns the files, the page first. Raises InputError for what cannot work."""
    from analysis.advise import page, picture, ready
    from analysis.advise.advice import content
    from analysis.advise.subject import Asked, Subject
    from analysis.kit.safe import make_safe
    from experiments.measure.results import write
    from experiments.places import plain

    asked = Asked(options.model, options.task, options.preset, options.results, options.settings)
    subject = Subject(asked)
    folder = options.out or Path(options.results) / "advice" / f"{plain(subject.model)}_{plain(subject.task)}"
    advice = found(subject, options, folder)
    write(folder / "advice.md", page.page(advice))
    write(folder / "advice.json", json.dumps(content(advice), indent=1, allow_nan=False) + "\n")
    make_safe([folder / "advice.md"])
    drawn = picture.draw(advice, folder / "advice.png")
    pasted = ready.write(subject, advice.ranks, advice.plain, advice.rate.lr, folder)
    print(f"advice: {advice.sentence}")
    return [folder / "advice.md", folder / "advice.json", drawn, *pasted]


def found(subject: Subject, options: argparse.Namespace, folder: Path) -> Advice:
    """Plans and says so, trains, looks, recommends and, with --confirm, tests."""
    from analysis.advise import choose, confirm, plan, rates
    from analysis.advise.advice import Advice, kept
    from analysis.advise.looks import Looks
    from analysis.advise.subject import SEEDS
    from experiments.jobs import resolve
    from experiments.measure.results import make_folder
    from experiments.progress import report

    margin, grid = choose.Margin.of(options.margin), _rates(options.rates)
    floored = margin.share > 0 and not subject.writes
    beside = len(SEEDS) * floored + 3 * len(confirm.SEEDS) * options.confirm
    plan.check(options.budget, grid, beside)
    make_folder(folder)
    r_max, size = plan.fitting(subject)
    largest = dict.fromkeys(subject.units, r_max)
    todo = plan.make(subject, r_max, size, options.budget, grid, beside, folder)
    for line in plan.said(subject, todo, size):
        report(line)
    rate = rates.search(subject, largest, todo.grid, todo.stages, size.train)
    for warning in rate.warnings:
        report(f"warning: {warning}")
    wanted = {f"the largest seed={seed}": subject.config(largest, rate.lr, seed, keep=True) for seed in SEEDS}
    runs = subject.train(wanted, f"give lower rates, as --rates {rate.lr / 10:g},{rate.lr / 3:.1g}")
    floor = _floor(subject) if floored else None
    looks = Looks(subject, dict(zip(runs, map(resolve, wanted.values()), strict=True)), r_max, folder)
    best = choose.recommend(subject, looks, margin, floor, options.heal)
    advised = kept(subject, best.best.pick)
    own = plan.measured(subject, advised)
    advice = Advice(subject, todo, size, rate, best, own, looks.metric, looks.head, floor, looks.seconds)
    if not options.confirm:
        return advice
    rivals = confirm.settings(subject, advised, largest)
    return advice._replace(confirmed=confirm.confirm(subject, rivals, rate.lr, looks.metric))


def _rates(text: str) -> list[float]:
    try:
        rates = sorted({float(one) for one in text.split(",")}) if text else []
    except ValueError as error:
        raise InputError(f"--rates {text}: give numbers, as 1e-4,1e-3") from error
    if any(not 0 < rate < float("inf") for rate in rates):
        raise InputError(f"--rates {text}: a rate is a number above 0")
    return rates


def _floor(subject: Subject) -> float:
    """The mean of the main metric of the head alone, on validation data."""
    from analysis.advise.subject import SEEDS

    wanted = {f"the head alone seed={seed}": subject.head_alone(seed) for seed in SEEDS}
    runs = subject.train(wanted, "give a lower head_lr, or MARGIN in points")
    return sum(subject.store.main_scores(run)["validation"] for run in runs) / len(runs)


def finish(command: Callable[[], Sequence[Path]]) -> int:
    """Run a command that trains, and say what it has written: exit codes of `experiments.arguments.finish`. SIGTERM
    ends it as Ctrl-C does, so that no worker outlives the parent."""

    def work() -> None:
        paths = command()
        print(f"wrote {paths[0].parent}: {', '.join(path.name for path in paths)}")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return ended(work, "what was finished is stored, the same command continues")
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    return finish(lambda: advise(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
