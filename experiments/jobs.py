"""What a job of a sweep wants computed, step by step: the runs of a tuning, if its rate is tuned, then its own run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from experiments import budget, tuning
from experiments.checks import check
from experiments.config import ModelSettings, RunConfig
from experiments.engines import Outcome, Status
from experiments.store import definition, run_id, store_of
from lora.config import InputError

DONE = (Status.COMPUTED, Status.STORED)


class Wanted(NamedTuple):
    """A run: its config, its id, and its role in the study: `tuning` or `study`."""

    config: RunConfig
    run_id: str
    role: str


Job = Generator[list[Wanted], list[Outcome], None]


def resolve(config: DictConfig) -> RunConfig:
    """The config of a run as typed values, its rank bought where it has a budget. Raises InputError as `check` and
    `budget.resolve`."""
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    check(resolved)
    return RunConfig.of(budget.resolve(resolved))


def job(config: DictConfig, say: Callable[[str], None]) -> Job:
    """The job of a composed config: yields runs that can be computed at once, is sent how each ended. `say` is told how
    a rate was chosen.

    Raises InputError if a run's settings cannot work, or no learning rate trains.
    """
    if config.training.lr == "tuned":
        config.training.lr = yield from _tuned(config, say)
    yield [_wanted(config, "study")]


def _wanted(config: DictConfig, role: str) -> Wanted:
    resolved = resolve(config)
    return Wanted(resolved, run_id(definition(resolved.given)), role)


def _tuned(config: DictConfig, say: Callable[[str], None]) -> Generator[list[Wanted], list[Outcome], float]:
    """The learning rate with the best validation score, all else as in `config` and `tuning.at`.

    Where text is generated that is the lowest validation loss.
    """
    store = store_of(config.results_dir)
    searching = tuning.search(config.tuning.lr_grid, config.tuning.extend, say)
    rates = next(searching)
    while True:
        wanted = [_candidate(config, lr) for lr in rates]
        outcomes = yield wanted
        scores = {}
        for lr, run, outcome in zip(rates, wanted, outcomes, strict=True):
            if outcome.status in DONE:
                scores[lr] = store.validation_score(run.run_id)
            elif outcome.status is Status.DIVERGED:
                say(f"lr={lr:g} is out: {outcome.message}")
            else:
                raise InputError(f"its learning rate cannot be tuned, the run at lr={lr:g} failed: {outcome.message}")
        try:
            rates = searching.send(scores)
        except StopIteration as found:
            best: float = found.value
            return best


def _candidate(config: DictConfig, lr: float) -> Wanted:
    candidate = config.copy()
    for key, value in {**config.tuning.at, "training.lr": lr}.items():
        OmegaConf.update(candidate, key, value)
    return _wanted(candidate, "tuning")


def summary(run: Wanted, metrics: Mapping[str, Any]) -> str:
    """A stored run in one line: what it is, its scores, and the seconds that it trained."""
    config, method = run.config, run.config.method
    scores = {(row["split"], row["metric"]): row["value"] for row in metrics["metrics"]}
    watched, main = metrics.get("validation_metric", metrics["main_metric"]), metrics["main_metric"]
    what = " ".join(f"{key}={value}" for key, value in method.items() if key != "name" and value)
    model = " ".join(filter(None, (_name(config.model), config.model.quantization)))
    task = definition(config.given)["task"]["name"]
    return (
        f"{run.run_id}  {model} {task} {method['name']} {what} lr={config.training.lr:g} seed={config.seed}: "
        f"validation {watched} {scores['validation', watched]:.4f}, test {main} {scores['test', main]:.4f}; "
        f"{metrics['train_seconds']:.0f} s"
    )


def _name(model: ModelSettings) -> str:
    return model.name.rstrip("/").rpartition("/")[2] if model.name == model.path else model.name
