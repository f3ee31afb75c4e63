"""adapter_config.json of a peft adapter, with peft's own rules for names and patterns (peft 0.21)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lora.errors import InputError, is_count, is_number
from lora.formats.others import library_of_config
from lora.formats.patterns import first_match, peft_patterns
from lora.tensor_files import read_json

PEFT_CONFIG = "adapter_config.json"
# What makes a peft LoRA something else than our LoRA or DoRA on the pretrained W0: options, and inits that change W0
OTHER = (
    *("use_qalora", "use_bdlora", "kasa_config", "arrow_config", "alora_invocation_tokens", "lora_bias"),
    *("layer_replication", "trainable_token_indices", "target_parameters", "enable_lora"),
)
OTHER_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
INITS = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica")
# Options that say how a LoRA was trained, or where from: they leave the equation as it is
HARMLESS = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out"),
    *("bias", "use_rslora", "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "use_dora", "velora_config", "qalora_group_size", "monteclora_config"),
    *("runtime_config", "ensure_weight_tying", "merge_weights"),
)
ALL_LINEAR = "all-linear"
LARGEST = 2.0**127  # of a scaling: fp32's range


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        ("use_dora", "use_rslora", "ensure_weight_tying", "fan_in_fan_out"),
        (lambda value: isinstance(value, bool), "true or false"),
    ),
    **dict.fromkeys(
        ("target_modules", "exclude_modules", "layers_pattern"),
        (lambda value: isinstance(value, str) or _texts(value), "a list of names or a regular expression"),
    ),
    "modules_to_save": (_texts, "a list of names"),
    "layers_to_transform": (
        lambda value: is_count(value, 0) or (isinstance(value, list) and all(is_count(one, 0) for one in value)),
        "a list of layers",
    ),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "base_model_name_or_path": (lambda value: isinstance(value, str), "a name"),
}


class PeftConfig(NamedTuple):
    """The options of one adapter, checked; `folder` is where it is. Names are those that peft saw."""

    folder: Path
    options: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.folder / PEFT_CONFIG

    def is_on(self, name: str) -> bool:
        """Whether an option is set."""
        return bool(self.options.get(name))

    def values(self, name: str, patterns: str, modules: Sequence[str]) -> list[Any]:
        """An option (`r`) of each module: that of the first of `patterns` (`rank_pattern`) that matches the end of its
        name, else the one for all, 8 by default. Raises InputError if a pattern is no regular expression that ends."""
        given = self.options.get(patterns) or {}
        if not isinstance(given, dict):
            raise InputError(f"{self.path} is damaged: {patterns} is no table from patterns to numbers")
        found = first_match(peft_patterns(list(given)), modules, f"{self.path} is damaged: {patterns}")
        choices = list(given.values())
        return [self.options.get(name, 8) if first is None else choices[first] for first in found]

    def targeted(self, modules: Sequence[str]) -> list[bool]:
        """Whether peft puts an adapter on each module (`peft.tuners.tuners_utils.check_target_module_exists`).

        Raises InputError as `values`.
        """
        if self.is_on("ensure_weight_tying"):
            return [True] * len(modules)  # peft adapts what is tied to a target, whatever its name
        excluded = self._listed("exclude_modules", modules)
        saved = [f"(^|.*\\.){name}($|\\..*)" for name in self.options.get("modules_to_save") or []]
        apart = first_match(saved, modules, f"{self.path} is damaged: modules_to_save")
        chosen = self.options.get("target_modules")
        if chosen is None or str(chosen).lower() == ALL_LINEAR:
            named = [True] * len(modules)
        else:
            named = self._listed("target_modules", modules)
        layers = self._layers(modules)
        return [
            own and layer and not out and whole is None
            for own, layer, out, whole in zip(named, layers, excluded, apart, strict=True)
        ]

    def _listed(self, option: str, modules: Sequence[str]) -> list[bool]:
        """Whether each module is in an option: whole or by its end in a list, or matched by an expression."""
        given = self.options.get(option)
        if isinstance(given, str):
            where = f"{self.path} is damaged: {option}"
            return [found is not None for found in first_match([given], modules, where, whole=True)]
        ends = tuple(f".{name}" for name in given or [])
        return [f".{module}".endswith(ends) if ends else False for module in modules]

    def _layers(self, modules: Sequence[str]) -> list[bool]:
        """Whether each module is in one of the layers to transform."""
        given = self.options.get("layers_to_transform")
        chosen = self.options.get("target_modules")
        if given is None or given == [] or isinstance(chosen, str) or chosen is None:
            return [True] * len(modules)
        layers, named = [given] if isinstance(given, int) else given, self.options.get("layers_pattern") or []
        named = [named] if isinstance(named, str) else named
        heads = [rf"(?:^|.*?\.){name}" for name in named] or [r".*?\.[^.]*"]
        number = "|".join(map(str, layers))
        # The first number behind a pattern is the layer: where it matches at all, no later pattern is asked.
        inside = first_match([rf"{head}\.\d+\." for head in heads], modules, f"{self.path} is damaged: layers_pattern")
        return [
            module in chosen or (index is not None and self._is_layer(heads[index], number, module))
            for module, index in zip(modules, inside, strict=True)
        ]

    def _is_layer(self, head: str, number: str, module: str) -> bool:
        """Whether the first number behind `head` in a module's name is one of `number`."""
        found = re.match(rf"{head}\.(?P<layer>\d+)\.", module)
        return found is not None and re.fullmatch(number, found["layer"]) is not None

    def is_saved(self, name: str) -> bool:
        """Whether a parameter is of a module that peft trains whole, in a copy (`peft.utils.other._set_trainable`)."""
        given = tuple(self.options.get("modules_to_save") or ())
        parts = name.split(".")
        return bool(given) and any(".".join(parts[:end]).endswith(given) for end in range(1, len(parts)))


def read_peft_config(folder: Path) -> PeftConfig:
    """adapter_config.json. Raises InputError if it is damaged, of another library, or of another equation (PiSSA…)."""
    options = read_json(folder / PEFT_CONFIG)
    config = PeftConfig(folder, options)
    if library := library_of_config(options):
        raise InputError(f"{folder} is an adapter of {library}, which is not read here: give it in peft's format")
    init = str(options.get("init_lora_weights")).lower()
    other = [name for name in OTHER if options.get(name)]
    other += [name for name, value in options.items() if value and name not in (*HARMLESS, *OTHER)]
    other += [init] * (init not in INITS)
    if options.get("peft_type") != "LORA" or other:
        what = ", ".join(other) if options.get("peft_type") == "LORA" else options.get("peft_type")
        raise InputError(
            f"{folder}: this peft adapter uses {what}, which is not h = W0 x + s B A x on the pretrained W0"
            + (
                ", as far as it is known here"
                if not set(other) & set(OTHER) and not init.startswith(OTHER_INITS)
                else ""
            )
        )
    for name, (right, what) in TYPES.items():
        value = options.get(name)
        if value is not None and not right(value):
            raise InputError(f"{config.path} is damaged: {name} = {str(value)[:80]!r} is not {what}")
    return config


def scaling(config: PeftConfig, r: Any, alpha: Any) -> float | None:
    """The factor in front of B A; None if r and lora_alpha are not what gives one that fp32 holds."""
    if not is_count(r) or not is_number(alpha):
        return None
    found = float(alpha / (r**0.5 if config.is_on("use_rslora") else r))
    return found if abs(found) < LARGEST else None
