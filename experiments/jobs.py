"""What a job of a sweep wants computed, step by step: the runs of a tuning, if its rate is tuned, then its own run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf

from experiments import budget, collapse, tuning
from experiments.checks import check
from experiments.config import ModelSettings, RunConfig
from experiments.engines import Outcome, Status
from experiments.kinds import kind_of
from experiments.store import definition, run_id, store_of
from lora.config import InputError

DONE = (Status.COMPUTED, Status.STORED)


class Wanted(NamedTuple):
    """A run: its config, its id, and its role in the study: `study`, `tuning`, or `floor`, what the rates of a tuning
    must be better than."""

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


def job(config: DictConfig, say: Callable[[str], None], role: str = "study") -> Job:
    """The job of a composed config: yields runs that can be computed at once, is sent how each ended. `say` is told how
    a rate was chosen; `role` is that of its own run, the last.

    Raises InputError if a run's settings cannot work, or no learning rate trains.
    """
    if config.training.lr == "tuned":
        config.training.lr = yield from _tuned(config, say)
    yield [_wanted(config, role)]


def _wanted(config: DictConfig, role: str) -> Wanted:
    resolved = resolve(config)
    return Wanted(resolved, run_id(definition(resolved.given)), role)


def _tuned(config: DictConfig, say: Callable[[str], None]) -> Generator[list[Wanted], list[Outcome], float]:
    """The learning rate with the best validation score, the mean of those of `tuning.seeds`, all else as in `config`
    and `tuning.at`; see `tuning.search` for rates that are out.

    The score is the main metric or, where text is generated or `tuning.by` says so, the loss, lowest is best.
    """
    seeds = list(config.tuning.get("seeds") or [config.tuning.at.get("seed", config.seed)])
    floors = yield from _floors(config, seeds)
    searching = tuning.search(config.tuning.lr_grid, config.tuning.extend, say)
    rates = next(searching)
    while True:
        wanted = [_candidate(config, lr, seed) for lr in rates for seed in seeds]
        outcomes = yield wanted
        found = {}
        for number, lr in enumerate(rates):
            part = slice(number * len(seeds), (number + 1) * len(seeds))
            if _trained(outcomes[part], f"lr={lr:g}", say):
                found[lr] = _tried(config, wanted[part], floors)
        try:
            rates = searching.send(found)
        except StopIteration as ended:
            return ended.value


def _trained(outcomes: Sequence[Outcome], rate: str, say: Callable[[str], None]) -> bool:
    """False, which is said, if a run at a rate diverged. Raises InputError if one failed otherwise."""
    for outcome in outcomes:
        if outcome.status not in (*DONE, Status.DIVERGED):
            raise InputError(f"its learning rate cannot be tuned, the run at {rate} failed: {outcome.message}")
    lost = [outcome for outcome in outcomes if outcome.status is Status.DIVERGED]
    if lost:
        say(f"{rate} is out: {lost[0].message}")
    return not lost


def _tried(config: DictConfig, runs: Sequence[Wanted], floors: Sequence[float]) -> tuning.Tried:
    """What the runs of one rate came to; `floors` are the accuracies of a head alone, by seed, if they are asked for.
    Of runs that do not say whether they have collapsed, those of before they did, none counts as collapsed."""
    store = store_of(config.results_dir)
    metrics = [store.metrics(run.run_id) for run in runs]
    worst = 2 if any(one.get("collapsed") for one in metrics) else 0
    if not worst and floors:
        reached = [one["validation_accuracy"] for one in metrics]
        worst = int(any(not collapse.above(*pair) for pair in zip(reached, floors, strict=True)))
    by_loss = config.tuning.get("by") == "loss"
    return tuning.Tried(fmean(store.validation_score(run.run_id, by_loss) for run in runs), worst)


def _candidate(config: DictConfig, lr: float, seed: int) -> Wanted:
    candidate = config.copy()
    for key, value in {**config.tuning.at, "seed": seed, "training.lr": lr}.items():
        OmegaConf.update(candidate, key, value)
    return _wanted(candidate, "tuning")


def _floors(config: DictConfig, seeds: Sequence[int]) -> Generator[list[Wanted], list[Outcome], list[float]]:
    """The validation accuracy of the head alone, trained at its own rate with each seed: what a rate must be better
    than, where `tuning.floor` asks for that and the task has a head. Empty where not."""
    if not config.tuning.get("floor") or config.method.name == config.tuning.floor:
        return []
    if kind_of(cast(dict[str, Any], OmegaConf.to_container(config.task, resolve=True))) == "pairs":
        return []
    rate = config.training.head_lr
    if rate is None:
        raise InputError("tuning.floor is a head trained alone, at a rate of its own: give head_lr, or set it to null")
    wanted = []
    # As the setting has it: what a study says of all its settings may refer to fields that head_only lacks.
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    for seed in seeds:
        alone = OmegaConf.create(plain)
        OmegaConf.update(alone, "method", {"name": config.tuning.floor}, merge=False)
        fixed = {"lr_grid": [rate], "extend": 0, "at": {"seed": seed}, "by": config.tuning.get("by", "metric")}
        OmegaConf.update(alone, "tuning", fixed, merge=False)
        # As conf/method/head_only.yaml: what is trained is the head, at the rate of the run.
        for key, value in {"seed": seed, "training.lr": rate, "training.head_lr": None}.items():
            OmegaConf.update(alone, key, value)
        wanted.append(_wanted(alone, "floor"))
    outcomes = yield wanted
    for outcome in outcomes:
        if outcome.status not in DONE:
            raise InputError(f"its learning rate cannot be tuned, the head alone failed: {outcome.message}")
    store = store_of(config.results_dir)
    found = (store.metrics(run.run_id).get("validation_accuracy") for run in wanted)
    return [accuracy for accuracy in found if accuracy is not None]  # a regression has none


def summary(run: Wanted, metrics: Mapping[str, Any]) -> str:
    """A stored run in one line: what it is, its scores, and the seconds that it trained."""
    config, method = run.config, run.config.method
    scores = {(row["split"], row["metric"]): row["value"] for row in metrics["metrics"]}
    watched, main = metrics.get("validation_metric", metrics["main_metric"]), metrics["main_metric"]
    what = " ".join(f"{key}={value}" for key, value in method.items() if key != "name" and value)
    model = " ".join(filter(None, (_name(config.model), config.model.quantization)))
    task = definition(config.given)["task"]["name"]
    test = f", test {main} {scores['test', main]:.4f}" if ("test", main) in scores else ""
    return (
        f"{run.run_id}  {model} {task} {method['name']} {what} lr={config.training.lr:g} seed={config.seed}: "
        f"validation {watched} {scores['validation', watched]:.4f}{test}; "
        f"{metrics['train_seconds']:.0f} s"
    )


def _name(model: ModelSettings) -> str:
    return model.name.rstrip("/").rpartition("/")[2] if model.name == model.path else model.name
