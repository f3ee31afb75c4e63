"""Hydra's errors about settings in one line, with the nearest name that there is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.names import CONF, did_you_mean, near, options

GROUPS = ("model", "task", "method", "preset", "study")
LISTS = ("hydra.sweeper.places", "hydra.sweeper.points")  # of conf/hydra/sweeper/points.yaml
PART = "a part of a study is only.model=minilm only.task=rotten_tomatoes, or of any of its settings"
# What Hydra says of a setting that there is not, and of a config that its group does not have.
_SETTING = re.compile(r"Could not override '(?P<key>[^']+)'")
_CONFIG = re.compile(r"Could not (?:find|load) '(?P<group>\w+)/(?P<name>[^']+)'")


def in_one_line(error: HydraException | OmegaConfBaseException, overrides: Sequence[str]) -> str:
    """What is wrong with the settings of a command line, and the nearest name that there is, for the error that Hydra
    or OmegaConf raised for `overrides`."""
    text = str(error)
    # Of a sweeper that has no such list Hydra says anything: that values with commas are ambiguous, too.
    words = [word.partition("=")[0] for word in overrides]
    if key := next((word for word in words if word in LISTS and _without(word, overrides)), None):
        return f"{key}: this study's runs are every combination of its values, it has no such list; {PART}"
    if match := _SETTING.search(text):
        return _no_setting(match["key"], text, overrides)
    match = _CONFIG.search(text)
    if match and match["group"] in GROUPS:
        return f"unknown {match['group']} {match['name']}{did_you_mean(match['name'], options(match['group']))}"
    return " ".join(text.partition("Config search path")[0].split())


def _no_setting(key: str, text: str, overrides: Sequence[str]) -> str:
    """The line on an override of a setting that the config of one of the runs does not have."""
    group, _, field = key.partition(".")
    owners = [name for name in options("method") if field in fields(name)]
    if group == "method" and owners:
        # Of a study whose grid is no product of values the sweeper says what to do.
        advice = text.partition("; choose the study's points instead")
        return f"{key} is a setting of {', '.join(owners)}, not of every method here{''.join(advice[1:])}"
    tree = _settings(overrides)
    found = [".".join(parts) for parts in _corrected(key.split("."), tree)] or near(key, _flat(tree))
    if found:
        return f"unknown setting {key}; did you mean {' or '.join(found[:3])}?"
    inside = tree.get(group)
    if isinstance(inside, Mapping):
        return f"unknown setting {key}; {group} has {', '.join(inside)}"
    return f"unknown setting {key}; there are {', '.join(name for name in tree if name != 'hydra')}"


def _without(key: str, overrides: Sequence[str]) -> bool:
    """True if what a command line composes has no `key`."""
    chosen = [word for word in overrides if word.startswith("study=")]
    return OmegaConf.select(OmegaConf.create(_settings(chosen)), key) is None


def fields(method: str) -> set[str]:
    """The settings `method.…` of a method's config, with those of the configs that it builds on."""
    config = yaml.safe_load((CONF / "method" / f"{method}.yaml").read_text(encoding="utf-8"))
    bases = [base for base in config.get("defaults", []) if base != "_self_"]
    return set(config["method"]).union(*map(fields, bases))


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The config that a command line composes, as far as its choices of configs are right; of several the first."""
    chosen: list[str] = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group in GROUPS:
            values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
            chosen.append(f"{override.key_or_group}={next(iter(values))}")
    GlobalHydra.instance().clear()  # of the command that failed
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = _composed(chosen)
        except (HydraException, OmegaConfBaseException):
            config = _composed([])
    tree = OmegaConf.to_container(config)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _composed(choices: Sequence[str]) -> DictConfig:
    return compose("config", list(choices), return_hydra_config=True)


def _corrected(parts: Sequence[str], tree: Any) -> list[list[str]]:
    """The settings that are nearest to a key, part by part; as far as they are there."""
    if not parts or not isinstance(tree, Mapping):
        return [[]]
    heads = [parts[0]] if parts[0] in tree else near(parts[0], tree)
    found = []
    for head in heads:
        tails = _corrected(parts[1:], tree[head])
        if tails or parts[0] != head:
            found += [[head, *tail] for tail in tails or [[]]]
    return found


def _flat(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, Mapping) or not tree:
        return [prefix]
    inside = {name: value for name, value in tree.items() if prefix or name != "hydra"}
    return [name for key, value in inside.items() for name in _flat(value, f"{prefix}.{key}" if prefix else str(key))]
