"""What an adapter and its smaller self are worth on a task: scores on validation data. Test data are not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from analysis.adapters.made import Made
from analysis.weights.run_base import FINGERPRINT, Start
from experiments import own, problems, suggest, tasks
from experiments.config import ModelSettings, RunConfig
from experiments.jobs import resolve
from experiments.measure.stored_runs import PRECISIONS
from experiments.models import choose_runtime
from experiments.problems.base import Problem
from lora.config import InputError
from lora.fill import fill
from lora.model import eject
from lora.stored import Adapter, Target

SPLIT = "validation"


def compare(
    whole: Adapter, small: Made, task: str, settings: Sequence[str], base: str | None, start: Start | None
) -> list[str]:
    """A line a score of `task`, a config's name or a data file: with the adapter as it was, and with the smaller one.

    `settings`: further ones, as of `experiments.run`; `start`: of the run that the adapter is of, whose base model is
    taken where `base` is not given.

    Raises InputError if there is no base model, if the task cannot be read, or if it needs a head that the adapter has
    not stored.
    """
    config = _config(task, settings, base, start)
    run = config.runtime
    problem = problems.load(config, tasks.load(config.task), choose_runtime(run.device, run.precision, run.threads))
    parameters = whole.parameters()
    lacking = [head for head in problem.heads if not any(name.startswith(f"{head}.") for name in parameters)]
    if lacking:
        raise InputError(f"{whole.source} has no {lacking[0]}, without which {task} has no scores: leave --task out")
    before = _scores(problem, whole.all_tensors(), parameters, whole)
    after = _scores(problem, small.adapters, parameters, whole)
    name = config.task["name"] or Path(task).stem
    return [f"{SPLIT} {metric} on {name}: {before[metric]:.4f} before, {after[metric]:.4f} now" for metric in before]


def _config(task: str, settings: Sequence[str], base: str | None, start: Start | None) -> RunConfig:
    """The config of a run on the task, of which the model and the data are used."""
    known = dict(start.config["model"]) if start else {}
    if base is None and (start is None or str(known["path"]).startswith(FINGERPRINT)):
        raise InputError("--task needs the base model, to put the adapters into it: give --base")
    model = base or str(known["path"])
    try:
        with initialize_config_module("experiments.conf", version_base="1.3"):
            composed = compose("config", own.typed([f"--model={model}", f"--task={task}", *settings]))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(suggest.in_one_line(error, list(settings))) from error
    config = resolve(composed)
    if start:
        own_model = ModelSettings.of({**config.given["model"], **known, "path": model})
        precision = PRECISIONS[str(start.precision).removeprefix("torch.")]
        config = replace(config, model=own_model, runtime=replace(config.runtime, precision=precision))
    return config


def _scores(
    problem: Problem, adapters: Mapping[Target, tuple[Tensor, ...]], parameters: Mapping[str, Tensor], source: Adapter
) -> dict[str, float]:
    fill(problem.model, adapters, parameters, source.source, apart=source.apart)
    found = problem.evaluate(SPLIT, generate=False).scores
    eject(problem.model)
    return found
