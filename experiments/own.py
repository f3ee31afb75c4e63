"""The user's own models, files and columns on command lines: any name that the system allows, in the quotes of Hydra.

`--model NAME` and `--task NAME` of `experiments.run` are a name in experiments/conf, else a hub id, a folder or a data
file, as they are. So is what is typed as `task.path=…`, and in the other fields that name files or columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from experiments import names
from experiments.paths import user_path

FILES = (
    "model.path", "task.path", "task.validation_path", "task.test_path", "task.data_dir", "glue_dir", "results_dir",
    "study_dir",
)  # fmt: skip
TEXTS = (
    "model.name", "task.name", "task.encoding", "task.text_column", "task.text_pair_column", "task.label_column",
    "task.prompt_column", "task.completion_column",
)  # fmt: skip


def quoted(text: str) -> str:
    """A text as a value of a Hydra override, whatever is in it."""
    # OmegaConf takes ${ for a reference, unless a backslash is before it; then backslashes before that count double.
    plain = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Of Hydra's own: a quote, and backslashes before one or before the end.
    inner = re.sub(r"(\\*)(')", r"\1\1\\\2", plain)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inner) + "'"


def is_config(group: str, name: str) -> bool:
    """True if experiments/conf has a config of this name in the group, which is no part of others."""
    return name in names.options(group)


def chosen(model: str, task: str) -> list[str]:
    """Overrides for `--model` and `--task`; "" is none."""
    found = []
    if model:
        found += [f"model={model}"] if is_config("model", model) else ["model=hub", f"model.path={quoted(model)}"]
    if task:
        found += [f"task={task}"] if is_config("task", task) else ["task=local", f"task.path={quoted(task)}"]
    return found


def typed(arguments: Sequence[str]) -> list[str]:
    """A command line for Hydra: `--model` and `--task` as overrides, and names of files and columns in quotes where
    they need them."""
    options, rest = {"--model": "", "--task": ""}, []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name in options:
            options[name] = value if equals else next(waiting, "")
        else:
            rest.append(_typed(argument))
    return [*chosen(options["--model"], options["--task"]), *rest]


def _typed(argument: str) -> str:
    key, equals, value = argument.partition("=")
    field = key.lstrip("+")
    if not equals or field not in (*FILES, *TEXTS) or value[:1] in ("'", '"') or value in ("", "null"):
        return argument
    if field in FILES and "\0" not in value and user_path(value).exists():
        return f"{key}={quoted(value)}"
    try:
        override = OverridesParser.create().parse_override(f"{field}={value}")
    except HydraException:
        return f"{key}={quoted(value)}"
    found = override.value()
    return argument if override.is_sweep_override() or isinstance(found, str) else f"{key}={quoted(value)}"


def places(model: str, task: str, arguments: Iterable[str], fields: Sequence[str]) -> dict[str, str]:
    """Of a command line of `experiments.run`, with its `--model` and `--task`: the plain values of these fields."""
    found = {}
    for argument in typed([*chosen(model, task), *arguments]):
        key, _, value = argument.partition("=")
        if key.lstrip("+") in fields and value and value != "null":
            found[key.lstrip("+")] = _plain(value)
    return found


def _plain(value: str) -> str:
    """The text that a value of an override stands for."""
    if value[:1] not in ("'", '"'):
        return value
    text = str(OverridesParser.create().parse_override(f"x={value}").value())
    return re.sub(r"(\\*)\\\$\{", lambda match: "\\" * (len(match[1]) // 2) + "${", text)
