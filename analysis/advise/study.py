"""Is the advice as good as the best of a sweep, and what does it cost? Its regret, beside rules of thumb.

    python -m analysis.advise.study --preset desk

On each model and task of PLACES: the advice is asked for, then it, its rivals and every setting of the sweep are
trained with seeds that the advice has not used. The sweep's best is chosen on validation data; regret is its test score
minus that of the others, by seed. Writes regret.csv, table.md and regret.png; what is stored is not trained again.
With --model and --task one place is judged; the rows of others stay.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.advise import __main__ as command
from analysis.advise.advice import named
from analysis.advise.subject import Asked, Ranks, Subject
from analysis.kit import figures
from analysis.kit.safe import make_safe
from analysis.maths import estimates, statistics
from experiments.arguments import Parser, program
from experiments.markdown import markdown
from experiments.measure.results import make_folder, write
from experiments.places import plain
from experiments.store import Store
from lora.errors import InputError

ADVICE = "the advice"
CLASSIFIERS = ("rotten_tomatoes", "reuters_r8", "reuters_r52", "glue/sst2", "newsgroups")
PLACES = {
    "smoke": [("minilm", "rotten_tomatoes")],
    "quick": [("minilm", "rotten_tomatoes"), ("minilm", "reuters_r8")],
    "desk": [*(("minilm", task) for task in CLASSIFIERS), ("smollm2", "text2sql"), ("smollm2", "e2e")],
}
SEEDS = {"smoke": (0, 1), "quick": (0, 1, 2), "desk": (0, 1, 2, 3, 4)}
RANKS = {"smoke": (1, 8), "quick": (1, 4, 16, 64), "desk": (1, 8, 64)}
SETS = ("q+v", "q+k+v+o")  # of the sweep; of language models the first alone
# Each setting of the sweep and of the rules has a rate of its own, as protocol 2 chooses it.
TUNING = ("tuning.lr_grid=[3e-4,1e-3,3e-3]", "tuning.extend=1", "tuning.by=loss")
TUNING_SEEDS = {False: "tuning.seeds=[1000,1001]", True: "tuning.seeds=[1000]"}  # a language model's loss scatters less
BY_SIZE = ((1_000, 8), (10_000, 16), (100_000, 32))  # fewer examples than that: this rank
BEYOND = 64
APART = 0.01  # a predicted score is wrong by more than a point
READING = """\
Regret: test score of the sweep's best, chosen on validation data, minus that of the setting, in points, mean ± half of
the 95% interval over seeds; below 0 the setting is better. Seeds are not those of the advice. Predicted: the validation
score that the cut said, and the mean of the trained runs. Cost: seconds of all runs and looks of the advice as a share
of the seconds of the sweep's runs, its tuning among them."""


class Contender(NamedTuple):
    """A setting that is judged: ranks and rate (`tuned`: its own is found); swept: it is one of the sweep."""

    name: str
    ranks: Ranks
    lr: float | str = "tuned"
    swept: bool = False


def rule(examples: int) -> int:
    """The rank that the rule by data size gives."""
    return next((rank for size, rank in BY_SIZE if examples < size), BEYOND)


def contenders(subject: Subject, advice: Mapping[str, Any], preset: str) -> Iterator[Contender]:
    """The advice, its rivals and the sweep."""
    largest, lr = advice["largest"], float(advice["lr"])
    r_max = max(largest.values())

    def on(types: str, r: int) -> dict[str, int]:
        return {unit: min(r, largest[unit]) for unit in subject.units if unit in types.split("+")}

    yield Contender(ADVICE, advice["ranks"], lr)
    yield Contender("r = 8 on q v", on("q+v", 8))
    yield Contender("r = 16 on all types", {unit: min(16, r_max) for unit in subject.units})
    yield Contender("rank by data size, on q v", on("q+v", rule(int(advice["train_examples"]))))
    yield Contender("the largest", largest, lr)
    for types in SETS[:1] if subject.writes else SETS:
        for r in (rank for rank in RANKS[preset] if rank <= r_max):
            yield Contender(f"sweep: r = {r} on {types}", on(types, r), swept=True)


def judge(options: argparse.Namespace, model: str, task: str) -> pd.DataFrame:
    """A row a contender and seed: test score, regret, and what the advice predicted and cost."""
    place = Path(options.results) / options.preset / "advice" / f"{plain(Path(model).name)}_{plain(Path(task).stem)}"
    given = ["--model", model, "--task", task, "--preset", options.preset, "--results", options.results]
    asked = [*given, "--out", str(place), *(["--heal"] if options.heal else []), *options.settings]
    command.advise(command.parse(asked))
    advice = json.loads((place / "advice.json").read_text(encoding="utf-8"))
    tuning = (*TUNING, TUNING_SEEDS[advice["metric"] == "loss"])
    subject = Subject(Asked(model, task, options.preset, options.results, (*tuning, *options.settings)))
    seeds, found = SEEDS[options.preset], list(contenders(subject, advice, options.preset))
    pairs = [(one, seed) for seed in seeds for one in found]
    configs = {f"{one.name} seed={seed}": subject.config(one.ranks, one.lr, seed, test=True) for one, seed in pairs}
    rows, store, spent = [], subject.store, set[str]()
    for (one, seed), runs in zip(pairs, subject.sweep(configs), strict=True):
        run = runs[-1]
        about = {"model": subject.model, "task": subject.task, "contender": one.name, "swept": one.swept, "seed": seed}
        about |= {"setting": named(one.ranks), "parameters": subject.parameters(one.ranks), "run_id": run}
        rows.append(about | (_scores(store, run) if run else {"validation": np.nan, "value": np.nan}))
        spent |= {own for own in runs if one.swept and own in store}
    sweep = sum(store.metrics(run)["train_seconds"] for run in spent)
    table = pd.DataFrame(rows)
    best = str(table[table["swept"]].groupby("contender")["validation"].mean().idxmax())
    reference = table[table["contender"] == best].set_index("seed")["value"]
    table["regret"] = table["seed"].map(reference) - table["value"]
    predicted = float(advice["found"]["best"]["score"]["value"])
    return table.assign(
        best=str(best), predicted=predicted, cost=advice["spent_seconds"] / sweep, metric=advice["metric"]
    )


def _scores(store: Store, run: str) -> dict[str, float]:
    """The main metric on validation data, or minus the loss where it is not known there, and on test data."""
    main = store.main_scores(run)
    validation = main["validation"] if "validation" in main else store.validation_score(run, by_loss=True)
    return {"validation": validation, "value": main["test"]}


def regret(options: argparse.Namespace) -> list[Path]:
    """Judges every place of a preset; returns the files, the table first. Raises InputError as the advice does."""
    if options.preset not in PLACES:
        raise InputError(f"--preset {options.preset}: there are {', '.join(PLACES)}")
    if bool(options.model) != bool(options.task):
        raise InputError("give MODEL and TASK, or neither")
    places = [(options.model, options.task)] if options.model and options.task else PLACES[options.preset]
    folder = Path(options.results) / options.preset / "advice-study"
    make_folder(folder)
    table = gathered(folder / "regret.csv", [judge(options, *place) for place in places])
    write(folder / "regret.csv", table.to_csv(index=False, float_format="%.6g"))
    write(folder / "table.md", report(table))
    make_safe([folder / "regret.csv", folder / "table.md"])
    return [folder / "table.md", folder / "regret.csv", draw(table, folder / "regret.png")]


def gathered(path: Path, judged: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of these places, and those that the file has of others: places are judged one by one, or together."""
    new = pd.concat(judged, ignore_index=True)
    old = pd.read_csv(path) if path.is_file() else new[:0]
    places = set(zip(new["model"], new["task"], strict=True))
    others = [place not in places for place in zip(old["model"], old["task"], strict=True)]
    return pd.concat([old[others], new], ignore_index=True) if any(others) else new


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean regret of each rival at each place, with half of its 95% interval: mean, interval, n, parameters."""
    rows = []
    for (model, task, name), own in table[~table["swept"]].groupby(["model", "task", "contender"], sort=False):
        found = estimates.mean(own["regret"].dropna().to_numpy())
        half = found.interval[1] - found.value
        row = {"model": model, "task": task, "contender": name, "setting": own["setting"].iloc[0]}
        rows.append(
            row | {"mean": found.value, "interval": half, "n": found.n, "parameters": own["parameters"].iloc[0]}
        )
    return pd.DataFrame(rows)


def report(table: pd.DataFrame) -> str:
    """table.md."""
    means = summary(table)
    texts = [statistics.mean_text(*row) for row in means[["mean", "interval", "n"]].itertuples(index=False, name=None)]
    means = means.assign(regret=texts, parameters=[f"{count:,}" for count in means["parameters"]])
    over = means.groupby("contender", sort=False)["mean"].agg(["mean", "max", "size"]).reset_index()
    over[["mean", "max"]] = (100 * over[["mean", "max"]]).round(2)
    own = table[table["contender"] == ADVICE]
    trained = own.groupby(["model", "task"], sort=False)
    facts = pd.DataFrame(
        {
            "the sweep's best": trained["best"].first(),
            "metric": trained["metric"].first(),
            "predicted": trained["predicted"].first().round(4),
            "trained": trained["validation"].mean().round(4),
            "cost": [f"{share:.0%}" for share in trained["cost"].first()],
        }
    ).reset_index()
    wrong = facts[(facts["predicted"] - facts["trained"]).abs() > APART]
    bad = ", ".join(f"{row.task} ({row.model})" for row in wrong.itertuples()) or "nowhere"
    blocks = [
        "# The advice beside a sweep and rules of thumb",
        READING,
        markdown(over.rename(columns={"mean": "mean regret", "max": "worst", "size": "places"})),
        markdown(means[["model", "task", "contender", "setting", "parameters", "regret"]]),
        markdown(facts),
        f"Where the cut is wrong by more than a point: {bad}. `--heal` trains lower ranks on for a tenth of the steps "
        "before it looks.",
    ]
    return "\n\n".join(blocks) + "\n"


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Regret by place, a colour a contender."""
    means = summary(table)
    places = list(dict.fromkeys(zip(means["model"], means["task"], strict=True)))
    names = list(dict.fromkeys(means["contender"]))
    figure, axes = figures.panels(1, 1, figures.PAGE_WIDTH, 1.6 + 0.5 * len(places))
    axis = axes[0, 0]
    for index, name in enumerate(names):
        own = means[means["contender"] == name]
        y = [
            places.index(place) + 0.12 * (index - (len(names) - 1) / 2)
            for place in zip(own["model"], own["task"], strict=True)
        ]
        axis.errorbar(100 * own["mean"], y, xerr=100 * own["interval"], fmt="o", markersize=4, capsize=2, label=name)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.axvspan(-0.5, 0.5, color="0.5", alpha=0.12, linewidth=0)
    axis.set_yticks(range(len(places)), [f"{task} ({model})" for model, task in places])
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.set(xlabel="points of test score below the sweep's best (left is better); grey: half a point")
    figure.legend(loc="outside right upper", frameon=False)
    return figures.save(figure, path)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError for a wrong one."""
    parser = Parser(prog=program("analysis.advise.study"), description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="quick", help=", ".join(PLACES))
    parser.add_argument("--model", default="", help="with --task: one place, in place of the preset's")
    parser.add_argument("--task", default="")
    parser.add_argument("--heal", action="store_true", help="as of analysis.advise")
    parser.add_argument("--results", default="results")
    parser.add_argument("settings", nargs="*", metavar="FIELD=VALUE", help="further settings of runs")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    return command.finish(lambda: regret(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
