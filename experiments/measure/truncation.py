"""How much of an update's effect its own truncation to rank k keeps: the intrinsic rank of the update, measured.

    python -m experiments.measure.truncation results/desk/truncation

For every run of full fine-tuning and of LoRA in the study, each weight of the types q k v o up gate down is replaced by
W0 + the k largest terms of the SVD of W - W0, or of its delta_w, and the model is evaluated on validation and test
data. Nothing is chosen from either. All else that the run has trained (biases, norms, embeddings, the head) is kept as
it was trained: k = 0 shows what this does alone. The largest k of a run is that at which nothing is cut away.

Writes truncation.csv, a row a run, k, split and metric, and with split `update` and metric `energy` the share of the
squared Frobenius norm that is kept. Loss and accuracy are measured; text is generated with --generate alone, on test
data. What is stored is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from experiments.arguments import finish
from experiments.measure import stored_runs
from experiments.measure.results import Results
from experiments.measure.schemas import TRUNCATION
from experiments.measure.stored_runs import Run
from lora.config import InputError

K = (0, 1, 2, 4, 8, 16, 32, 64)
UPDATE, ENERGY = "update", "energy"


def steps(whole: int) -> list[int]:
    """The ranks to which an update is cut that is whole at rank `whole`: first not at all, then from 0."""
    return [whole, *(k for k in K if k < whole)]


def missing(results: Results, run_id: str, generate: bool) -> list[int] | None:
    """Which k of a run are to be measured; None: all, and which they are is not known yet."""
    rows = [row[1:] for row in results.keys("run_id", "k", "split", "metric") if row[0] == run_id]
    if not rows:
        return None
    done = {k for k, split, metric in rows if not generate or (split == "test" and metric != "loss")}
    return [k for k in steps(max(k for k, *_ in rows)) if k not in done]  # a run's largest k is its first


def is_cut(run: Run) -> bool:
    """True for full fine-tuning and LoRA; DoRA's update has no rank, and other methods have no update of W."""
    return run.method["name"] == "full" or (run.method["name"] == "lora" and not run.method.get("dora"))


def measure(options: argparse.Namespace) -> None:
    """Measure what truncation.csv lacks. Raises InputError for a study without runs that can be cut, and as
    `stored_runs.runs` and `Results`."""
    runs = [run for run in stored_runs.runs(options) if is_cut(run)]
    if not runs:
        raise InputError(f"{options.study_dir} has no run of full fine-tuning or LoRA, whose update could be cut")
    results = Results(options.study_dir, TRUNCATION)
    known = {run.run_id for run in runs}
    results.keep([run_id in known for (run_id,) in results.keys("run_id")])
    todo = [(run, ks) for run in runs if (ks := missing(results, run.run_id, options.generate)) != []]
    print(f"{results.path}: {len(runs)} runs, {len(runs) - len(todo)} of them stored")
    cache: dict[str, Any] = {}
    with tqdm(todo, unit="run", disable=None) as bar:
        for run, ks in bar:
            _measure(run, ks, results, options.generate, cache, bar)


def _measure(
    run: Run, ks: list[int] | None, results: Results, generate: bool, cache: dict[str, Any], bar: tqdm[Any]
) -> None:
    """Measure one run at `ks`, None: all; `cache` holds the data of the last task."""
    from experiments import problems, tasks  # torch: seconds that stored results do not need
    from experiments.measure import cuts

    task = json.dumps(run.config.task, sort_keys=True)
    if task not in cache:
        cache.clear()
        cache[task] = tasks.load(run.config.task)
    loaded = problems.load(run.config, cache[task], run.runtime())
    update = cuts.load(loaded.model, run.method, loaded.heads, run.adapter, max(K))
    names = {name: value for name, value in run.names.items() if name in TRUNCATION.types}
    for k in steps(update.whole) if ks is None else ks:
        bar.set_description(f"{run.names['label']} {run.names['settings']} k={k}")
        update.to(k)
        scores = {split: loaded.evaluate(split, generate).scores for split in ("validation", "test")}
        scores[UPDATE] = {ENERGY: update.energy(k)}
        rows = [
            names | {"k": k, "split": split, "metric": metric, "value": value}
            for split, found in scores.items()
            for metric, value in found.items()
        ]
        results.add(rows, "run_id", "k")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    parser = stored_runs.parser("truncation", __doc__.splitlines()[0])
    parser.add_argument("--generate", action="store_true", help="write text at each k too, where the task is to write")
    return finish(lambda: measure(parser.parse_intermixed_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
