"""Which rank, which weight types, which learning rate? One training at a large rank, cut, in place of a sweep.

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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # Ctrl-C while the rest is imported: nothing was begun
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from experiments.arguments import Parser
from lora.errors import InputError

if TYPE_CHECKING:
    from analysis.advise.choose import Margin
    from analysis.advise.page import Advice
    from analysis.advise.subject import Subject


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog="python -m analysis.advise", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="minilm", help="a name in experiments/conf, a hub id, a folder")
    parser.add_argument(
        "--task", default="rotten_tomatoes", help="a name in experiments/conf, a CSV, TSV or JSONL file"
    )
    parser.add_argument("--preset", default="quick", help="sizes: smoke, quick, desk, paper")
    parser.add_argument("--budget", default="", help="a time, as 20m, or a number of runs (default: no limit)")
    parser.add_argument(
        "--margin", default="0.5", help="points below the largest, or as 5%% of the gain over the head alone"
    )
    parser.add_argument("--rates", default="", help="learning rates to try, as 1e-4,1e-3 (default: 1e-4 to 3e-2)")
    parser.add_argument("--confirm", action="store_true", help="train the advice and its rivals, and read the test set")
    parser.add_argument("--heal", action="store_true", help="train ranks on that a cut says too little of")
    parser.add_argument("--results", default="results", help="where runs are stored")
    parser.add_argument("--out", type=Path, help="folder (default: RESULTS/advice/<model>_<task>)")
    parser.add_argument("settings", nargs="*", metavar="FIELD=VALUE", help="further settings of runs")
    return parser.parse_intermixed_args(arguments)


def rates(text: str) -> list[float]:
    """Learning rates as typed. Raises InputError for one that is none."""
    try:
        found = sorted({float(one) for one in text.split(",") if one})
    except ValueError as error:
        raise InputError(f"--rates {text}: give numbers, as 1e-4,1e-3") from error
    if any(not 0 < rate < float("inf") for rate in found):
        raise InputError(f"--rates {text}: rates are above 0")
    return found


def advise(options: argparse.Namespace) -> list[Path]:
    """Does what the command says; returns the files, the page first. Raises InputError for what cannot work."""
    from analysis.advise.choose import Margin
    from analysis.advise.subject import Asked, Subject

    margin, grid = Margin.of(options.margin), rates(options.rates)
    asked = Asked(options.model, options.task, options.preset, options.results, tuple(options.settings))
    subject = Subject(asked)
    folder = options.out or Path(options.results) / "advice" / subject.name
    advice = found(subject, margin, grid, options, folder)
    return written(advice, folder)


def found(subject: Subject, margin: Margin, grid: Sequence[float], options: argparse.Namespace, folder: Path) -> Advice:
    """The advice: plans, says so, trains, looks, recommends, and with --confirm tests."""
    from analysis.advise import choose, confirm, looks, page, plan
    from analysis.advise import rates as search
    from experiments.progress import report

    r_max, size = plan.fitting(subject)
    floors = margin.share > 0 and not subject.writes
    more = plan.FLOOR * floors + plan.CONFIRMED * options.confirm
    todo = plan.make(subject, r_max, size, options.budget, grid, more, folder)
    for line in plan.said(subject, todo, size):
        report(line)
    ranks = dict.fromkeys(subject.units, r_max)
    rate = search.search(subject, ranks, todo.grid, todo.stages, size.train)
    for warning in rate.warnings:
        report(f"warning: {warning}")
    runs = largest(subject, ranks, rate.lr)
    floor = _floor(subject) if floors else None
    taken = looks.Looks(subject, runs, r_max, folder)
    best = choose.recommend(subject, taken, margin, floor, options.heal)
    chosen = page.kept(subject, best.best.pick)
    confirmed = []
    if options.confirm:
        rivals = {"the advice": chosen, "the common default": confirm.default(subject, r_max), "the largest": ranks}
        confirmed = confirm.confirm(subject, {name: own for name, own in rivals.items() if own}, rate.lr)
    own = plan.measured(subject, chosen)
    ids = [run for run, _ in runs]
    return page.Advice(subject, todo, size, rate, best, own, margin, taken.metric, taken.heads, floor, ids, confirmed)


def largest(subject: Subject, ranks: dict[str, int], lr: float) -> list[tuple[str, Any]]:
    """The runs of the largest adapter, by seed. Raises InputError if one diverges."""
    from analysis.advise.subject import SEEDS

    wanted = {f"r_max seed={seed}": subject.config(ranks, lr, seed, keep=True) for seed in SEEDS}
    ids = subject.train(wanted)
    configs = [subject.run(config) for config in wanted.values()]
    if None in ids:
        raise InputError(
            f"lr = {lr:g} trains with some seeds and diverges with seed {SEEDS[ids.index(None)]}: what was trained is "
            f"stored; give lower rates, as --rates {lr / 10:g},{lr / 3:.1g}"
        )
    return [(str(run), config) for run, config in zip(ids, configs, strict=True)]


def _floor(subject: Subject) -> float:
    """The mean validation score of the head alone."""
    from analysis.advise.subject import SEEDS

    ids = subject.train({f"head alone seed={seed}": subject.head_alone(seed) for seed in SEEDS})
    if None in ids:
        raise InputError("the head alone diverged at its rate: give a lower head_lr, or MARGIN in points")
    return sum(subject.store.validation_score(str(run)) for run in ids) / len(ids)


def written(advice: Advice, folder: Path) -> list[Path]:
    """Writes the page, the numbers, the picture and the settings to paste."""
    from analysis.advise import page, picture, ready
    from analysis.kit.safe import make_safe
    from experiments.measure.results import write

    texts = {
        "advice.md": page.markdown_page(advice),
        "advice.json": json.dumps(page.content(advice), indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        write(folder / name, text)
    make_safe([folder / "advice.md"])
    drawn = picture.draw(advice, folder / "advice.png")
    pasted = ready.write(advice.subject, advice.ranks, advice.plain, advice.rate.lr, folder)
    print(f"advice: {advice.sentence}")
    return [folder / "advice.md", folder / "advice.json", drawn, *pasted]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: 0, 2 with one line for bad input, 130 when it is interrupted."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no worker outlives the parent
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        paths = advise(parse(arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is stored, the same command continues", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"wrote {paths[0].parent}: {', '.join(path.name for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
