"""What advice is about: a model and a task, as runs of this suite, and the runs that are made for it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import names, own, store, suggest
from experiments.jobs import resolve
from experiments.kinds import kind_of
from experiments.sweep import Entry, Sweep
from lora import budget, targets
from lora.config import LoRAConfig
from lora.errors import InputError
from lora.layer import adaptable

SEEDS = (2000, 2001, 2002)  # no table and no tuning uses them
HEAD_RATE = "3e-2"  # protocol 2: the head has a rate of its own
# Of language models, by preset: training and validation pairs, as their studies have them; and their batch.
PAIRS = {"smoke": (16, 8), "quick": (192, 32), "desk": (512, 200), "paper": (None, None)}
BATCH = 8
# Settings that have an option of their own, and those that the advice chooses.
OPTIONS = {"preset": "--preset", "results_dir": "--results", "model": "--model", "task": "--task"}
CHOSEN = ("method", "method.r", "training.lr", "seed", "task.test_examples", "runtime.keep_weights", "study")
Ranks = Mapping[str, int]  # of each unit, a weight type or a pattern of modules; 0, or not there: no adapter


class Asked(NamedTuple):
    """What was typed: a model and a task (names in experiments/conf, hub ids, folders, files), the preset that sets
    sizes, where results go, and further settings of runs."""

    model: str
    task: str
    preset: str
    results: str
    settings: Sequence[str] = ()


class Subject:
    """A model and a task; units: what adapters may be on. made: the runs so far, by run_id.

    Raises InputError for settings that no run can have or that are the advice's own, and for a model whose weight types
    are not known where no modules are named.
    """

    def __init__(self, asked: Asked) -> None:
        if asked.preset not in PAIRS:
            raise InputError(f"unknown preset {asked.preset}{names.did_you_mean(asked.preset, list(PAIRS))}")
        _check(asked.settings)
        self.asked, self.made = asked, dict[str, None]()
        task = OmegaConf.to_container(self._composed([]).task, resolve=True)
        self.writes = kind_of(cast(dict[str, Any], task)) == "pairs"
        self.base = self._composed(self._defaults())
        try:
            self.resolved = resolve(self.base)
        except OmegaConfBaseException as error:  # a config that asks for a path, as hub
            what = f"--model {asked.model} --task {asked.task}"
            raise InputError(f"{what}: one of them has no path: give a hub id, a folder or a file") from error
        self.store = store.store_of(self.resolved.results_dir)
        self.task = str(store.definition(self.resolved.given)["task"]["name"])
        self.model = Path(self.resolved.model.name).name
        self.alpha = float(self.base.method.alpha)
        self.patterns = tuple(self.base.method.modules)
        self.units = (*self._weight_types(), *self.patterns)
        if not self.units:
            inside = [name for name, module in self.body.named_modules() if name and adaptable(module)]
            raise InputError(
                f"weight types are not known for a {self.body.config.model_type} model: name modules, as ARGS="
                f"""'"method.modules=[*.dense]"' (it has {", ".join(inside[:4])}, …)"""
            )

    def _defaults(self) -> list[str]:
        if not self.writes:
            return [f"head_lr={HEAD_RATE}"]
        train, validation = ("null" if size is None else size for size in PAIRS[self.asked.preset])
        sizes = [f"task.train_examples={train}", f"task.validation_examples={validation}"]
        return ["head_lr=null", f"training.batch_size={BATCH}", *sizes]

    def _composed(self, defaults: Sequence[str]) -> DictConfig:
        asked = self.asked
        first = [f"preset={asked.preset}", "method=lora", f"results_dir={own.quoted(asked.results)}", *defaults]
        overrides = own.typed([f"--model={asked.model}", f"--task={asked.task}", *first, *asked.settings])
        try:
            with initialize_config_module("experiments.conf", version_base="1.3"):
                return compose("config", overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(suggest.in_one_line(error, overrides)) from error

    def _weight_types(self) -> tuple[str, ...]:
        """Those that were typed, else all that the model has."""
        if any(one.partition("=")[0] == "method.weight_types" for one in self.asked.settings):
            return tuple(filter(None, str(self.base.method.weight_types or "").split("+")))
        return targets.weight_types(self.body)

    @cached_property
    def body(self) -> Any:
        """The pretrained body, on the meta device."""
        from experiments.models import skeleton  # torch: seconds that a wrong name should not cost

        return skeleton(self.resolved.model.path)

    def lora(self, ranks: Ranks) -> LoRAConfig:
        """Adapters of these ranks, as the core has them."""
        kept, layers = {unit: ranks[unit] for unit in self.units if ranks.get(unit)}, self.base.method.layers
        return LoRAConfig(
            r=kept,
            alpha=self.alpha,
            weight_types=tuple(unit for unit in kept if unit not in self.patterns),
            modules=tuple(unit for unit in kept if unit in self.patterns),
            layers=None if layers is None else tuple(layers),
        )

    def parameters(self, ranks: Ranks) -> int:
        """Parameters of these adapters, without the head; 0 where there are none."""
        return budget.parameters(self.body, self.lora(ranks)) if any(ranks.values()) else 0

    def unit_of(self, module: str, part: str) -> int:
        """The place of the unit by which an adapter came to its module."""
        found = (part == unit or (unit in self.patterns and fnmatch.fnmatch(module, unit)) for unit in self.units)
        return list(found).index(True)

    def config(
        self,
        ranks: Ranks,
        lr: float | str,
        seed: int,
        examples: int | None = None,
        test: bool = False,
        keep: bool = False,
    ) -> DictConfig:
        """A run of LoRA with these ranks. examples: fewer training examples than it has; test: whether it reads the
        test split at its end; keep: its weights, however large they are."""
        config, adapters = self.base.copy(), self.lora(ranks)
        each = {adapters.rank(unit) for unit in adapters.names}
        config.method.r = each.pop() if len(each) == 1 else {unit: adapters.rank(unit) for unit in adapters.names}
        config.method.weight_types = "+".join(adapters.weight_types)
        config.method.modules = list(adapters.modules)
        config.runtime.keep_weights = "all" if keep else "none"
        if examples is not None:
            config.task.train_examples = examples
        return _run(config, lr, seed, test)

    def head_alone(self, seed: int) -> DictConfig:
        """The floor: a run of the task's head alone, at the head's own rate."""
        config = self.base.copy()
        OmegaConf.update(config, "method", {"name": "head_only"}, merge=False)
        rate = config.training.head_lr
        config.training.head_lr = None
        return _run(config, rate, seed, test=False)

    def sweep(self, wanted: Mapping[str, DictConfig], role: str = "study") -> list[list[str]]:
        """Trains these runs, by name, unless they are stored. Returns the run_ids of each, its own last, after those of
        its tuning; "" in its place if it diverged, which is no failure in the role `tuning`.

        Raises InputError for a run that failed otherwise. What was trained stays.
        """
        sweep = Sweep([Entry(name, config, role) for name, config in wanted.items()])
        sweep.run()
        found = []
        for *tuning, last in sweep.listed:
            diverged = (self.store.failure(last["run_id"]) / store.DIVERGED).is_file()
            if "error" in last and not diverged:
                raise InputError(f"run {last['run_id']} failed: {last['error']}")
            found.append([*(one["run_id"] for one in tuning), "" if "error" in last else last["run_id"]])
        self.made |= dict.fromkeys(run for runs in found for run in runs if run in self.store)
        return found

    def train(self, wanted: Mapping[str, DictConfig], advice: str) -> list[str]:
        """As `sweep`, the run_id of each. Raises InputError, with what to do, if one diverged."""
        ids = [runs[-1] for runs in self.sweep(wanted)]
        if "" in ids:
            name = list(wanted)[ids.index("")]
            raise InputError(f"{name} diverged; what was trained is stored: {advice}")
        return ids


def _check(settings: Sequence[str]) -> None:
    """Raises InputError for what would be overridden unseen."""
    for one in settings:
        name, _, value = one.lstrip("+").partition("=")
        if name in OPTIONS:
            raise InputError(f"{one}: give {OPTIONS[name]} {value}")
        if name in CHOSEN and one != "method=lora":
            raise InputError(f"{one}: this is what the advice, which is of LoRA, chooses or sets: leave it out")


def _run(config: DictConfig, lr: float | str, seed: int, test: bool) -> DictConfig:
    config.training.lr, config.seed = lr, seed
    if not test:
        config.task.test_examples = 0
    return config
