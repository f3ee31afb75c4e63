"""docs/settings.md and docs/api.md: every setting of a run, and what `import lora` gives, from the code that says so.

python -m analysis.reference     writes them anew
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

import lora
from experiments import config, method_settings, names, settings
from experiments.markdown import markdown
from experiments.rules import Rule

DOCS = Path(__file__).parents[1] / "docs"
LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.]+):(?: (?P<value>[^#]*?))?(?: *# ?(?P<what>.*))?$")
MORE = re.compile(r"^ +# (?P<what>.*)$")
SETTINGS = """\
# Every setting

Made by `python -m analysis.reference` from [experiments/conf](../experiments/conf) and the types that check it. A
setting is written alike everywhere: `lora-lab run method.r=4`, `lora-lab study rank_ablation method.r=2,4`,
`make ablate-rank ARGS='method.r=2,4'`. Several values, with commas, are a grid. A wrong name or value is one line that
says what may be, and exit code 2. `lora-lab run --cfg job` prints all of them as they are for a command.

`--model NAME` is `model=NAME` for a name of this page, else `model=hub model.path=NAME`; `--task NAME` likewise is
`task=local task.path=NAME`. `${…}` in a default is the value of another setting."""
API = """\
# The Python API of `lora`

Made by `python -m analysis.reference` from the docstrings. The core needs torch, numpy and safetensors alone;
[examples/core_alone.py](../examples/core_alone.py) trains with it in a plain PyTorch loop."""


def settings_page() -> str:
    """The page of settings as markdown."""
    groups: dict[str, Mapping[str, Rule]] = {
        "training": config.TrainingSettings.rules(),
        "runtime": config.RuntimeSettings.rules(),
        "tuning": settings.TUNING,
        "model": config.ModelSettings.rules(),
    }
    top = dict(_fields("config.yaml"))
    parts = [SETTINGS, "## One value for a run", _table(top, "", settings.TOP)]
    for group, rules in groups.items():
        fields = {key.partition(".")[2]: value for key, value in top.items() if key.startswith(f"{group}.")}
        if group == "model":
            fields = dict(_fields("model/hub.yaml")) | fields
        parts += [f"## {group}", _table(fields, f"{group}.", rules)]
    known = ", ".join(f"`{name}`" for name in names.options("model"))
    parts += [f"`model=` is one of {known}.", "## method", "[What each method trains](methods.md)."]
    for name in names.options("method"):
        fields = {
            key.partition(".")[2]: value for key, value in _fields(f"method/{name}.yaml") if key.startswith("method.")
        }
        of = {key: value for key, value in fields.items() if key != "name"}
        if of:
            parts += [f"### method={name}", _table(of, "method.", _rules(name))]
    parts += ["## task", f"`task=` is one of {', '.join(f'`{name}`' for name in names.options('task'))}."]
    parts += ["### task=local", "Your own file; most of these fields are those of all tasks."]
    parts += [_table(dict(_fields("task/local.yaml")), "task.", settings.TASKS["local"])]
    parts.append("## engine")
    for name in names.options("engine"):
        parts += [f"### engine={name}", _table(dict(_fields(f"engine/{name}.yaml")), "engine.", {})]
    return "\n\n".join(parts) + "\n"


def _rules(method: str) -> dict[str, Rule]:
    """What the settings of a method's config may be: those of its parts, or of the method that it is a kind of."""
    kind = "full" if method in method_settings.OPTIMIZERS else "lora"
    parts = [part if part in method_settings.METHODS else kind for part in method.split("+")]
    return {name: rule for part in parts for name, rule in method_settings.METHODS[part].rules().items()}


def _fields(file: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Of a YAML of experiments/conf: each setting with its default and the comment beside it, nested ones as a.b."""
    inside: list[tuple[int, str]] = []
    last: tuple[str, tuple[str, str]] | None = None
    for line in (names.CONF / file).read_text(encoding="utf-8").splitlines():
        more = MORE.match(line)
        if more and last:
            last = (last[0], (last[1][0], f"{last[1][1]} {more['what']}".strip()))
            continue
        if last:
            yield last
        last = None
        found = LINE.match(line)
        if not found:
            continue
        depth, value, what = len(found["indent"]), (found["value"] or "").strip(), found["what"] or ""
        inside = [one for one in inside if one[0] < depth]
        key = ".".join([*(name for _, name in inside), found["key"]])
        if value.startswith("{") and key == "model":
            name, _, default = value.strip("{}").partition(": ")
            last = (f"{key}.{name}", (default, what))
        elif value:
            last = (key, (value, what))
        else:
            inside.append((depth, found["key"]))
    if last:
        yield last


def _table(fields: Mapping[str, tuple[str, str]], prefix: str, rules: Mapping[str, Rule]) -> str:
    rows = [
        (
            f"`{prefix}{name}`",
            f"`{default}`",
            rules[name].what.removeprefix("it must be ") if name in rules else "",
            what,
        )
        for name, (default, what) in fields.items()
        if prefix or name in rules
    ]
    return markdown(pd.DataFrame(rows, columns=["setting", "default", "may be", "what"]))


def api_page() -> str:
    """The page of the core's functions as markdown."""
    code = (lora.__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[0]
    parts = [API, f"```python\n{inspect.cleandoc(code)}\n```"]
    for name in lora.__all__:
        one = getattr(lora, name)
        parts += [f"## lora.{name}", f"```python\nlora.{name}{_signature(one)}\n```", _quoted(one)]
    variants = importlib.import_module("lora.variants")
    for name in ("Start", "Update"):
        parts += [f"## lora.variants.{name}", _quoted(getattr(variants, name))]
    return "\n\n".join(parts) + "\n"


def _signature(one: object) -> str:
    assert callable(one)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(one)))
    return re.sub(r"\b(?:torch\.nn\.modules\.module|nn|lora\.\w+|collections\.abc|pathlib)\.", "", text)


def _quoted(one: object) -> str:
    return f"```text\n{inspect.getdoc(one)}\n```"


def main() -> int:
    """Command line entry: writes both pages."""
    for name, page in (("settings.md", settings_page()), ("api.md", api_page())):
        (DOCS / name).write_text(page, encoding="utf-8")
        print(DOCS / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
