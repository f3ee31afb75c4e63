"""The stored runs of a study, on which something is measured.

Such a measurement is a command, `python -m experiments.measure.<name> STUDY_DIR`. It writes a CSV into the study's
folder, whole after each step, so that a command that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from experiments import method_names, own
from experiments.arguments import Parser, whole
from experiments.config import RunConfig, TrainingSettings
from experiments.records.source import unpacked
from experiments.records.sweep import make_command, read_sweep
from experiments.store import Store, definition
from experiments.tasks import PATH_FIELDS
from lora.config import InputError

if TYPE_CHECKING:
    from experiments.models import Runtime

PLACES = ("model.path", *(f"task.{field}" for field in PATH_FIELDS))
RUNTIME = ("runtime.device", "runtime.threads", "runtime.eval_batch_size")
# What is null does not define a run, and so is not stored with it.
_NULLS = {name: None for name, rule in TrainingSettings.rules().items() if rule.fits(None)}
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


class Run(NamedTuple):
    """A stored run, with a config from which its model and data can be loaded, in the precision it was trained in."""

    run_id: str
    folder: Path
    config: RunConfig
    study_dir: Path

    @property
    def method(self) -> Mapping[str, Any]:
        """The method's fields."""
        return self.config.method

    @property
    def writes(self) -> bool:
        """True for a run of a language model, which has written texts."""
        record = unpacked(self.folder)
        return record.predictions is not None if record else (self.folder / "predictions.jsonl").is_file()

    @property
    def adapter(self) -> Path:
        """What the run has trained. Raises InputError if that is not here."""
        if not (self.folder / "adapter").is_dir():
            command = make_command(self.study_dir)
            raise InputError(
                f"run {self.run_id} has no adapter in {self.folder}: it was unpacked from records, pruned, or trained "
                f"without keeping its weights; `{command} ARGS='runtime.keep_weights=all'` trains it again"
            )
        return self.folder / "adapter"

    @property
    def names(self) -> dict[str, Any]:
        """What a row of results says of the run: run_id, model, task, method, label, settings, r, seed."""
        return {
            "run_id": self.run_id,
            "model": self.config.model.name,
            "task": self.config.task["name"],
            "method": self.method["name"],
            "label": method_names.label(self.method),
            "settings": method_names.settings(self.method),
            "r": self.method.get("r", ""),
            "seed": int(self.config.seed),
        }

    def runtime(self) -> Runtime:
        """Where it is measured: the device of the settings, the precision of the run."""
        from experiments.models import choose_runtime

        where = self.config.runtime
        return choose_runtime(where.device, where.precision, where.threads)


def parser(name: str, description: str) -> Parser:
    """The command line that all measurements have: the study's folder, and where things are."""
    made = Parser(prog=f"python -m experiments.measure.{name}", description=description)
    made.add_argument("study_dir", type=Path, help="results/<preset>/<study>")
    made.add_argument(
        "settings",
        nargs="*",
        metavar="FIELD=VALUE",
        help=f"{', '.join(PLACES)}: where a model or data of your own are, of which stored runs know the content alone;"
        f" {', '.join(RUNTIME)}",
    )
    made.add_argument("--model", default="", help="as of experiments.run: where a model of your own is")
    made.add_argument("--task", default="", help="as of experiments.run: where data of your own are")
    made.add_argument(
        "--among", nargs=argparse.REMAINDER, default=[], help="a command line of experiments.run, to find settings in"
    )
    made.add_argument("--runs", type=Path, help="folder of the stored runs (default: STUDY_DIR/../../runs)")
    return made


def runs(options: argparse.Namespace) -> list[Run]:
    """The study's own finished runs, without those of a tuning alone.

    Raises InputError for a setting that is none, if a run is missing or damaged, and if a model or data of the user's
    own are not where the settings say.
    """
    among = own.places(options.model, options.task, options.among, (*PLACES, *RUNTIME))
    settings = among | _settings(options.settings)
    study_dir = options.study_dir.resolve()
    store = Store(options.runs or study_dir.parent.parent / "runs")
    roles = read_sweep(study_dir).roles
    return [_run(store, run_id, settings, study_dir) for run_id, own in roles.items() if "study" in own]


def _settings(given: Sequence[str]) -> dict[str, str]:
    pairs = dict(entry.partition("=")[::2] for entry in given)
    for name, value in pairs.items():
        if name not in (*PLACES, *RUNTIME) or not value:
            raise InputError(f"{name}={value} is no setting here: there are {', '.join((*PLACES, *RUNTIME))}")
    return pairs


def _run(store: Store, run_id: str, settings: Mapping[str, str], study_dir: Path) -> Run:
    advice = f"`{make_command(study_dir)}` trains it"
    folder = store.folder(run_id)
    if run_id not in store:
        raise InputError(f"run {run_id} of {study_dir / 'sweep.jsonl'} is not in {store.root}; {advice}")
    try:
        stored = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config = {**stored, "model": dict(stored["model"]), "task": dict(stored["task"])}
        config["training"] = _NULLS | stored["training"]
        precision = PRECISIONS[store.metrics(run_id)["precision"]]
        foreign = str(config["model"]["path"]).startswith("fingerprint:"), "data_sha256" in config["task"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            f"run folder {folder} is damaged ({' '.join(str(error).split())}); delete it, {advice} again"
        ) from error
    for part, is_own in zip(("model", "task"), foreign, strict=True):
        if is_own:
            _put(config, stored, part, settings, run_id)
    config["runtime"] = {
        "device": settings.get("runtime.device", "auto"),
        "precision": precision,
        "threads": _number(settings, "runtime.threads", None),
        "eval_batch_size": _number(settings, "runtime.eval_batch_size", 64),
        **{"keep_weights": "none", "checkpoint_every": None, "checkpointing": False},  # nothing is trained
    }
    config["results_dir"] = str(store.root.parent)
    try:
        return Run(run_id, folder, RunConfig.of(config), study_dir)
    except InputError as error:
        raise InputError(f"run {run_id} cannot be loaded: {error}") from error


def _number(settings: Mapping[str, str], name: str, default: int | None) -> int | None:
    try:
        return whole(settings[name]) if name in settings else default
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{name}: {error}") from error


def _put(config: dict[str, Any], stored: Mapping[str, Any], part: str, settings: Mapping[str, str], run: str) -> None:
    """Puts the user's own files into one part of a config, which names them by their content."""
    fields = [name for name in PLACES if name.startswith(f"{part}.")]
    given = {name.partition(".")[2]: settings[name] for name in fields if name in settings}
    if not given:
        where = "a model folder" if part == "model" else "data files"
        raise InputError(f"run {run} is of {where} of your own: say where, with {' or '.join(fields)}=PATH")
    config[part] |= dict.fromkeys(PATH_FIELDS) | given if part == "task" else given
    if definition({**stored, part: config[part]})[part] != stored[part]:
        places = ", ".join(given.values())
        raise InputError(f"run {run} was not of the {part} in {places}: its content is another, or has changed")
