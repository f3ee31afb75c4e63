"""Settings that no run can have, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from experiments import method_settings, rules, settings, trackers
from experiments.config import ModelSettings, RunConfig, RuntimeSettings, TrainingSettings
from experiments.kinds import check_kind
from lora.config import QUANTIZATIONS, InputError

WEIGHTS = ("full", "ft_top2", "freeze", "bitfit")  # methods that train what model.quantization freezes
GROUPS = {
    "model": ModelSettings.rules(),
    "training": TrainingSettings.rules(),
    "tuning": settings.TUNING,
    "runtime": RuntimeSettings.rules(),
    "preset": settings.PRESET,
    "study": settings.STUDY,
}


def check(config: Mapping[str, Any]) -> None:
    """Raises InputError, naming the field, for a setting that is missing, unknown, or cannot work, whatever the model
    and the data are; also for one that `tuning.at` would make so."""
    _check(config)
    tried = deepcopy(dict(config))
    for key, value in config["tuning"]["at"].items():
        *groups, field = str(key).split(".")
        place: Any = tried
        for group in groups:
            place = place.get(group) if isinstance(place, dict) else None
        if not isinstance(place, dict) or field not in place:
            raise InputError(f"tuning.at has {key}, which is no setting of this run")
        place[field] = value
    try:
        _check(tried)
    except InputError as error:
        raise InputError(f"tuning.at: {error}") from error


def _check(config: Mapping[str, Any]) -> None:
    for field, rule in settings.TOP.items():
        if field in config:
            rule.check(field, config[field])
        elif rule.required:
            raise InputError(f"{field} is missing: {rule.what.removeprefix('it ')}")
    if config.get("tracker"):
        trackers.require(config["tracker"])
    for group, fields in GROUPS.items():
        if group not in config:
            raise InputError(f"the group {group} is missing: choose one, or leave it as it is")
        rules.check_fields(group, config[group], fields)
    if "method" not in config:
        raise InputError("the group method is missing: choose one, or leave it as it is")
    method_settings.read(config["method"])
    task = config.get("task")
    if not isinstance(task, Mapping):
        raise InputError(f"task = {task!r}: choose one of experiments/conf/task, or task=local task.path=FILE")
    fields = settings.task_rules(task)
    if all(field in task for field, rule in fields.items() if rule.required) or task["family"] != "local":
        check_kind(config["study"], task)  # first: a task of the other kind lacks the fields of the study's
    rules.check_fields("task", task, fields)
    if "generation" in task:
        rules.check_fields("task.generation", task["generation"], settings.GENERATION)
    known = (*settings.ALONE, *settings.TOP)
    for field in config:
        if field not in known and config["study"]["name"] is None:
            raise InputError(f"there is no setting {str(field)!r}: there are {', '.join(known)}")
    check_quantization(config["model"].get("quantization"), config["method"])
    check_parallel(config["runtime"].get("parallel"), config["model"].get("quantization"), config["method"])
    check_offload(config["runtime"], config["model"].get("quantization"), config["method"])
    check_compile(config["runtime"], config["method"])


def check_models(configs: Iterable[RunConfig]) -> None:
    """Raises InputError if the model of one of the runs that are to be computed is neither here nor on the hub: see
    `hub.require`. Assets are not fetched yet."""
    from experiments import hub  # half a second that stored runs do not need

    for path in dict.fromkeys(config.model.path for config in configs):
        if not path.startswith(("asset:", "config:")):
            hub.locate(path)


def in_lines(errors: Sequence[tuple[str, str]]) -> list[str]:
    """A line for every different error of a sweep, from the name of each job that failed and what was wrong: the jobs
    that it stopped, the first three by name, and the error."""
    jobs: dict[str, list[str]] = {}
    for name, error in errors:
        jobs.setdefault(error, []).append(name)
    lines = []
    for error, names in jobs.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(": ".join(filter(None, [", ".join(names[:3]) + more, error])))
    return lines


def short_names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What tells each job of a sweep from the others, from the overrides of each: `method.r=8 seed=1`."""
    shared = set(jobs[0]).intersection(*jobs[1:]) if jobs else set()
    return [" ".join(override for override in job if override not in shared) for job in jobs]


def check_quantization(kind: object, method: Mapping[str, Any]) -> None:
    """Raises InputError if `kind` is no model.quantization, or freezes what `method` trains."""
    if kind is None:
        return
    if kind not in QUANTIZATIONS:
        raise InputError(f"model.quantization = {kind}: choose from {', '.join(QUANTIZATIONS)}, or null")
    training = set(str(method["name"]).split("+")).intersection(WEIGHTS)
    if training:
        raise InputError(
            f"model.quantization = {kind} freezes the linear layers, which method {training.pop()} trains, weights or "
            "biases: choose a method that adds parameters, such as lora"
        )


def check_parallel(how: object, kind: object, method: Mapping[str, Any]) -> None:
    """Raises InputError if runtime.parallel = `how` cannot shard what `method` leaves frozen, of this quantization."""
    if how != "fsdp":
        return
    named = _trains_all(method)
    if named:
        raise InputError(f"runtime.parallel = fsdp shards what is frozen, but {named} trains all of it: choose ddp")
    if kind not in (None, "nf4"):
        raise InputError(f"runtime.parallel = fsdp cannot shard layers of {kind}: choose nf4, or ddp")
    if init := _residual(method):
        raise InputError(
            f"runtime.parallel = fsdp cannot shard what method.init = {init} makes of W0 (it keeps both, from whole "
            "weights): choose ddp, or a start at B = 0"
        )


def check_offload(runtime: Mapping[str, Any], kind: object, method: Mapping[str, Any]) -> None:
    """Raises InputError if runtime.offload cannot be with the rest of `runtime`, this quantization, or `method`."""
    if runtime.get("offload") is None:
        return
    named, init, how = _trains_all(method), _residual(method), runtime.get("parallel")
    stays = not runtime.get("checkpointing") and method["name"] != "frozen"
    refused = (
        (how, f"is for one process, and runtime.parallel = {how} for several: choose one"),
        (kind, f"cannot move layers of {kind}: set model.quantization to null"),
        (named, f"moves what is frozen, but {named} trains all of it: choose a method that adds parameters"),
        (init, f"cannot move what method.init = {init} makes of W0, which it keeps too: choose a start at B = 0"),
        (method.get("dora"), "cannot be with DoRA, which reads all of W0 in every step: choose lora"),
        (stays, "needs runtime.checkpointing=true: without it the backward pass keeps all weights on the device"),
    )
    for holds, reason in refused:
        if holds:
            raise InputError(f"runtime.offload = auto {reason}")


def check_compile(runtime: Mapping[str, Any], method: Mapping[str, Any]) -> None:
    """Raises InputError if runtime.compile cannot be with the rest of `runtime`, or `method`."""
    if not runtime.get("compile"):
        return
    refused = (
        (runtime.get("parallel") == "fsdp", "cannot be with runtime.parallel = fsdp, which gathers layers: choose ddp"),
        (runtime.get("offload"), "cannot be with runtime.offload, which moves weights: set one of them to null"),
        (method.get("optimizer") == "badam", "cannot be with BAdam, each of whose turns would be compiled anew"),
    )
    for holds, reason in refused:
        if holds:
            raise InputError(f"runtime.compile = true {reason}")


def _trains_all(method: Mapping[str, Any]) -> str | None:
    """The name of a method that leaves nothing frozen."""
    if method["name"] != "full":
        return None
    return "method full" + {"galore": " with GaLore", "badam": " with BAdam"}.get(str(method.get("optimizer")), "")


def _residual(method: Mapping[str, Any]) -> str | None:
    """The start of a method that keeps W0 beside a residual."""
    from lora.variants import Start, known

    init = method.get("init")
    return str(init) if init in known(Start) and known(Start)[init].residual else None
