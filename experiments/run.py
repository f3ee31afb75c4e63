"""One run from one config, or (study=…, or -m) a grid of runs. A stored run is not computed again.

python -m experiments.run method.r=4 seed=1
python -m experiments.run study=rank_ablation preset=desk
python -m experiments.run --model FacebookAI/roberta-base --task 'my reviews.csv'     a hub id or folder, a data file
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import budget, own, progress
from experiments.checks import check
from experiments.store import DivergedError, Store, definition, run_id
from lora.config import InputError

Record = Callable[..., None]


def store_of(config: Mapping[str, Any]) -> Store:
    """The store in which a config's runs are."""
    return Store(Path(config["results_dir"]) / "runs")


def ensure(config: Mapping[str, Any]) -> str:
    """The run_id of a resolved config; its run is computed unless it is stored. Raises InputError as `compute` does."""
    store, defined = store_of(config), definition(config)
    identifier = run_id(defined)
    found = identifier in store
    if not found:
        with store.lock(identifier):
            found = identifier in store  # another process may have computed it while this one waited
            if not found:
                store.raise_if_diverged(identifier)
                from experiments.compute import compute  # imports torch: seconds that a stored run does not need

                with store.writing(identifier, defined) as folder:
                    compute(config, folder)
                progress.computed.append(identifier)
    progress.report(_summary(defined, store, identifier) + (" (stored)" if found else ""))
    return identifier


def _summary(defined: Mapping[str, Any], store: Store, identifier: str) -> str:
    method, metrics = defined["method"], store.metrics(identifier)
    validation, test = abs(store.validation_score(identifier)), store.main_scores(identifier)["test"]
    watched = metrics.get("validation_metric", metrics["main_metric"])
    what = " ".join(f"{key}={value}" for key, value in method.items() if key != "name" and value)
    model = " ".join(filter(None, (defined["model"]["name"], defined["model"].get("quantization"))))
    return (
        f"{identifier}  {model} {defined['task']['name']} {method['name']} {what}"
        f" lr={defined['training']['lr']:g} seed={defined['seed']}: "
        f"validation {watched} {validation:.4f}, test {metrics['main_metric']} {test:.4f}; "
        f"{metrics['train_seconds']:.0f} s"
    )


def tune(config: DictConfig, record: Record) -> float:
    """The learning rate with the best validation score, all else as in `config` and `tuning.at`.

    Where text is generated that is the lowest validation loss. Tried are those of `tuning.lr_grid` and, while the best
    lies at an edge, up to `tuning.extend` more beyond it. Of equals it is the one nearest to the grid's middle. Raises
    InputError if no learning rate trains.
    """
    grid = sorted(config.tuning.lr_grid)
    middle = grid[len(grid) // 2]
    scores: dict[float, float] = {}

    def rank(lr: float) -> tuple[float, float]:
        return scores[lr], -abs(math.log(lr / middle))

    waiting, tried = list(grid), list[float]()
    while waiting:
        lr = waiting.pop(0)
        tried = sorted([*tried, lr])
        try:
            scores[lr] = _tuning_score(config, lr, record)
        except DivergedError as error:
            progress.report(f"lr={lr:g} is out: {error}")
        if not waiting and scores and len(tried) < len(grid) + config.tuning.extend:
            waiting = _beyond(tried, max(scores, key=rank))
    if not scores:
        raise InputError(f"no learning rate of tuning.lr_grid = {grid} trains: give smaller ones")
    return max(scores, key=rank)


def _tuning_score(config: DictConfig, lr: float, record: Record) -> float:
    candidate = config.copy()
    for key, value in {**config.tuning.at, "training.lr": lr}.items():
        OmegaConf.update(candidate, key, value)
    resolved = _resolve(candidate)
    try:
        identifier = ensure(resolved)
    except DivergedError as error:
        record(run_id=run_id(definition(resolved)), role="tuning", error=str(error))
        raise
    record(run_id=identifier, role="tuning")
    return store_of(config).validation_score(identifier)


def _beyond(tried: list[float], best: float) -> list[float]:
    """The next learning rate outside those tried, if the best is an edge of them; a grid 1, 3, 10 goes on with 30."""
    if len(tried) < 3 or best not in (tried[0], tried[-1]):
        return []
    third, second, edge = tried[-3:] if best == tried[-1] else tried[2::-1]
    following = float(f"{second * edge / third:.3g}")
    progress.report(f"lr={best:g} is the best and the last of those tried: {following:g} is tried too")
    return [following]


def _resolve(config: DictConfig) -> dict[str, Any]:
    """The settings as plain values. Raises InputError as `check` and `budget.resolve`."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    check(resolved)
    return budget.resolve(resolved)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Compute, or find, the run of `config`; a study's sweep.jsonl notes the run, or why there is none."""

    def record(**entry: str) -> None:
        if config.study.name:
            with (Path(config.study_dir) / progress.SWEEP).open("a") as file:
                file.write(json.dumps(entry) + "\n")

    try:
        _resolve(config)  # finds settings that cannot work before the first of several learning rates is tried
        if config.training.lr == "tuned":
            config.training.lr = tune(config, record)
        record(run_id=ensure(_resolve(config)), role="study")
    except InputError as error:  # caught here: Hydra would print a traceback, and stop the sweep
        overrides = " ".join(HydraConfig.get().overrides.task)
        record(run_id=overrides, role="study", error=str(error))
        progress.report(f"error: {overrides}: {error}" if config.study.name else f"error: {error}")
        progress.failures.append(overrides)


def command() -> int:
    """Run `main`; bad input is one line and exit code 2, and the other runs of a study are done all the same."""
    progress.failures.clear()
    progress.computed.clear()
    sys.argv[1:] = own.typed(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed with a traceback
    # Threads that wait must not spin: beside other work on the same cores that makes a step several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        # A wrong name gets a list of what there is; names that begin with _ are parts of others, paths are Hydra's.
        lines = str(error).partition("Config search path")[0].splitlines()
        message = " ".join(line for line in lines if not line.strip().startswith("_"))
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is stored, the same command continues", file=sys.stderr)
        return 130
    return 2 if progress.failures else 0


if __name__ == "__main__":
    sys.exit(command())
