"""What advice is about: a model and a task, as runs of this suite, and the runs that were made for it."""

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

from experiments import names, own, places, store, suggest
from experiments.config import RunConfig
from experiments.jobs import resolve
from experiments.kinds import kind_of
from experiments.sweep import Entry, Sweep
from lora import budget, targets
from lora.config import LoRAConfig
from lora.errors import InputError

MOST = 64  # the largest rank that is asked for
SEEDS = (2000, 2001, 2002)  # no table and no tuning uses them
HEAD_RATE = "3e-2"  # protocol 2: the head has a rate of its own
# Language models: training and validation pairs by preset, and a batch, as the studies of language models have them.
PAIRS = {"smoke": (16, 8), "quick": (192, 32), "desk": (512, 200), "desk1": (192, 64), "paper": (None, None)}
BATCH = 8
Ranks = Mapping[str, int]  # of each weight type or pattern of modules; 0, or not there: no adapter


class Asked(NamedTuple):
    """What was typed: a model and a task (names in experiments/conf, hub ids, folders, files), the preset that sets
    sizes, where results go, and further settings of runs."""

    model: str
    task: str
    preset: str
    results: str
    settings: tuple[str, ...] = ()


class Subject:
    """A model and a task. Raises InputError for settings that no run can have, and for a model whose weight types are
    not known where no modules are named."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.base = self._composed([f"preset={asked.preset}", "method=lora"])
        task = cast(dict[str, Any], OmegaConf.to_container(self.base.task, resolve=True))
        self.writes = kind_of(task) == "pairs"
        self.base = self._composed([f"preset={asked.preset}", "method=lora", *self._defaults()])
        self.resolved = resolve(self.base)  # raises for wrong settings, before anything is loaded
        self.store = store.store_of(self.resolved.results_dir)
        self.units = self._units()

    def _defaults(self) -> list[str]:
        if not self.writes:
            return [f"head_lr={HEAD_RATE}"]
        train, validation = ("null" if size is None else size for size in PAIRS[self.asked.preset])
        sizes = [f"task.train_examples={train}", f"task.validation_examples={validation}"]
        return ["head_lr=null", f"training.batch_size={BATCH}", *sizes]

    def _composed(self, first: Sequence[str]) -> DictConfig:
        asked = self.asked
        if asked.preset not in PAIRS:
            raise InputError(f"unknown preset {asked.preset}{names.did_you_mean(asked.preset, list(PAIRS))}")
        where = [f"results_dir={own.quoted(asked.results)}"]
        overrides = own.typed([f"--model={asked.model}", f"--task={asked.task}", *first, *where, *asked.settings])
        try:
            with initialize_config_module("experiments.conf", version_base="1.3"):
                return compose("config", overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(suggest.in_one_line(error, overrides)) from error

    def _units(self) -> tuple[str, ...]:
        """The weight types, and patterns of modules, that adapters may be on: those that were typed, else all types."""
        method = self.base.method
        patterns = tuple(method.modules)
        if any(one.partition("=")[0] == "method.weight_types" for one in self.asked.settings):
            types = tuple(filter(None, str(method.weight_types or "").split("+")))
        else:
            types = targets.weight_types(self.body)
        if not types and not patterns:
            advice = """name modules, as ARGS='"method.modules=[*.attention.dense]"'"""
            kind = self.body.config.model_type
            inside = [name for name, module in self.body.named_modules() if name and targets.adaptable(module)]
            raise InputError(
                f"weight types are not known for a {kind} model: {advice} (it has {', '.join(inside[:4])}, …)"
            )
        return (*types, *patterns)

    @cached_property
    def body(self) -> Any:
        """The pretrained body, on the meta device."""
        from experiments.models import skeleton  # torch: seconds that a wrong name should not cost

        return skeleton(self.resolved.model.path)

    @property
    def name(self) -> str:
        """<model>_<task>, as a folder is called."""
        return "_".join(map(places._plain, (self.model, self.task)))

    @property
    def model(self) -> str:
        """The model's name, of a path its last part."""
        return Path(self.resolved.model.name).name

    @property
    def task(self) -> str:
        """The task's name, of a file its stem."""
        return str(store.definition(self.resolved.given)["task"]["name"])

    @property
    def alpha(self) -> float:
        """alpha of every adapter."""
        return float(self.base.method.alpha)

    def lora(self, ranks: Ranks) -> LoRAConfig:
        """Adapters of these ranks, as the core has them."""
        kept = {unit: ranks[unit] for unit in self.units if ranks.get(unit)}
        patterns = tuple(self.base.method.modules)
        types = tuple(unit for unit in kept if unit not in patterns)
        layers = self.base.method.layers
        return LoRAConfig(
            r=kept,
            alpha=self.alpha,
            weight_types=types,
            modules=tuple(unit for unit in kept if unit in patterns),
            layers=None if layers is None else tuple(layers),
        )

    def parameters(self, ranks: Ranks) -> int:
        """Parameters of these adapters, without the head; 0 where there are none."""
        return budget.parameters(self.body, self.lora(ranks)) if any(ranks.values()) else 0

    def unit_of(self, module: str, part: str) -> str:
        """The weight type, or the pattern, by which an adapter came to its module."""
        return part if part in self.units else next(unit for unit in self.units if fnmatch.fnmatch(module, unit))

    def config(
        self, ranks: Ranks, lr: float, seed: int, examples: int | None = None, test: bool = False, keep: bool = False
    ) -> DictConfig:
        """A run of LoRA with these ranks. examples: fewer training examples than it has; test: whether it reads the
        test split at its end; keep: its weights, however large they are."""
        config, kept = self.base.copy(), {unit: ranks[unit] for unit in self.units if ranks.get(unit)}
        patterns = list(self.base.method.modules)
        each = set(kept.values())
        config.method.r = each.pop() if len(each) == 1 else kept
        config.method.weight_types = "+".join(unit for unit in kept if unit not in patterns)
        config.method.modules = [unit for unit in kept if unit in patterns]
        config.runtime.keep_weights = "all" if keep else "none"
        return self._of(config, lr, seed, examples, test)

    def head_alone(self, seed: int) -> DictConfig:
        """The floor: a run of the task's head alone, at the head's own rate."""
        config = self.base.copy()
        OmegaConf.update(config, "method", {"name": "head_only"}, merge=False)
        rate = config.training.head_lr
        config.training.head_lr = None
        return self._of(config, rate, seed, None, False)

    @staticmethod
    def _of(config: DictConfig, lr: float, seed: int, examples: int | None, test: bool) -> DictConfig:
        config.training.lr, config.seed = lr, seed
        if examples is not None:
            config.task.train_examples = examples
        if not test:
            config.task.test_examples = 0
        return config

    def train(self, wanted: Mapping[str, DictConfig]) -> list[str | None]:
        """The run_ids of these runs, by name, each trained unless it is stored; None for one that diverged.

        Raises InputError for a run that failed otherwise. What was trained stays.
        """
        sweep = Sweep([Entry(name, config) for name, config in wanted.items()])
        sweep.run()
        return [self._ended(listed[-1]) for listed in sweep.listed]

    def _ended(self, entry: Mapping[str, str]) -> str | None:
        if "error" not in entry:
            return entry["run_id"]
        if (self.store.failure(entry["run_id"]) / store.DIVERGED).is_file():
            return None
        raise InputError(f"run {entry['run_id']} failed: {entry['error']}")

    def run(self, config: DictConfig) -> RunConfig:
        """The typed config of a run."""
        return resolve(config)
