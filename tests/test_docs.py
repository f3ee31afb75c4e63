"""Every command that README and docs show: it is composed, or its line is parsed, as far as it goes without running.

Each make target, and each command of lora-lab, is run with the smallest preset by tests/test_make.py and the tests of
its own. What needs a GPU or the hub says so on its page.
"""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from analysis.report import entries, texts
from experiments import own
from lora_lab.commands import available

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```", re.S | re.M)
SPAN = re.compile(r"(?<!`)`((?:make|lora-lab|python -m) [^`]+)`")
MORE = ("CONTRIBUTING.md", "ARCHITECTURE.md", "FINDINGS.md", "examples/README.md")
PLACEHOLDER = re.compile(r"…|\b(?:STUDY|NAME|COMMAND)\b| N\b(?!=)")  # in a form of a command, which is none
HUB = re.compile(r"(?:MODEL=|TASK=|--model |--task )[A-Za-z]\w+/[\w.-]+(?= |$)")
STUDIES = {entry.make: entry.folder for entry in entries.load()}
TORCHRUN = re.compile(r"^torchrun --nproc-per-node \d+ -m lora_lab")  # what each of its processes does
WORDS = ("make ", "lora-lab ", "python -m ")
HYDRA = ("-m", "--cfg", "job")  # Hydra's own options, in lines of `lora-lab run`


def lines() -> dict[str, list[str]]:
    """Each command that a page or the help of `lora-lab` shows, and where."""
    found: dict[str, list[str]] = {}
    for page in (*texts.pages(), *(ROOT / name for name in MORE)):
        text = page.read_text(encoding="utf-8")
        shown = [line for block in FENCE.findall(text) for line in block.splitlines()]
        shown += [" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text))]
        for line in shown:
            plain = TORCHRUN.sub("lora-lab", line.split("  #")[0].split(" # ")[0].strip())
            if plain.startswith(WORDS) and not PLACEHOLDER.search(plain):
                found.setdefault(plain, []).append(str(page.relative_to(ROOT)))
    for command in available().values():
        for example in command.examples:
            found.setdefault(example.split("   ")[0], []).append("help")
    return found


LINES = lines()
MAKE = sorted(line for line in LINES if line.startswith("make "))
LAB = sorted(line for line in LINES if line.startswith("lora-lab "))
MODULES = sorted({line.split()[2] for line in LINES if line.startswith("python -m ")})


@pytest.fixture(scope="module", autouse=True)
def hydra() -> object:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        yield


class ParsedError(Exception):
    """The line of a command was taken."""


def composes(arguments: list[str]) -> None:
    """Hydra makes a config of it; of a grid, of its first point."""
    overrides = OverridesParser.create().parse_overrides(own.typed(arguments))
    # Which runs `only.` leaves is checked by tests/experiments/test_only.py.
    plain = [one for one in overrides if not str(one.key_or_group).startswith(("hydra.", "only."))]
    first = BasicSweeper.split_arguments(plain, None)[0][0]
    assert compose("config", first)


def parses(where: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser of the command takes it. Nothing is done with it."""

    def stop(before: Any) -> Any:
        def parse(*args: Any, **kwargs: Any) -> NoReturn:
            before(*args, **kwargs)
            raise ParsedError

        return parse

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop(getattr(argparse.ArgumentParser, name)))
    module, _, function = where.partition(":")
    with pytest.raises(ParsedError):
        getattr(importlib.import_module(module), function)(arguments)


@pytest.mark.parametrize("line", LAB)
def test_a_line_of_lora_lab(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = shlex.split(line)[1:]
    if name.startswith("-") or "--help" in rest:
        return
    rest = [one for one in rest if one not in HYDRA]
    if name == "run":
        composes(rest)
    elif name == "study" and rest:
        assert rest[0] in STUDIES.values()
        composes([f"study={rest[0]}", *(rest[rest.index("--") + 1 :] if "--" in rest else rest[1:])])
    elif rest:
        parses(available()[name].where, rest, monkeypatch)


@pytest.mark.parametrize("line", MAKE)
def test_a_line_of_make(line: str) -> None:
    target, *rest = shlex.split(line)[1:]
    values = dict(one.partition("=")[::2] for one in rest)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(values) <= set(re.findall(r"(?:^|\$\()([A-Z]+)(?: \?=|\))", makefile, re.M))
    assert re.search(rf"^{target}:", makefile, re.M), target
    folder = STUDIES.get(target)
    if folder and own.is_config("study", folder):
        named = [f"--{name.lower()}={values[name]}" for name in ("MODEL", "TASK") if name in values]
        composes(
            [f"study={folder}", f"preset={values.get('PRESET', 'quick')}", *named, *shlex.split(values.get("ARGS", ""))]
        )


@pytest.mark.parametrize("module", MODULES)
def test_a_module_that_is_started_is_there(module: str) -> None:
    found = find_spec(module)
    assert found
    assert found.submodule_search_locations is None or find_spec(f"{module}.__main__")


@pytest.mark.parametrize("page", [*texts.pages()], ids=lambda page: str(page.relative_to(ROOT)))
def test_what_needs_a_gpu_or_the_hub_says_so(page: Path) -> None:
    text, own = page.read_text(encoding="utf-8"), [line for line in LINES if str(page.relative_to(ROOT)) in LINES[line]]
    assert not any(HUB.search(line) for line in own) or "hub" in text.lower()
    assert not any("PRESET=paper" in line or "preset=paper" in line for line in own) or "GPU" in text


def test_make_hands_on_what_was_typed() -> None:
    line = [
        "make",
        "-n",
        "-o",
        ".venv/.ready",
        "forgetting",
        "TEXT=my notes.txt",
        "MODEL=my model",
        "PRESET=smoke",
        "ARGS=seed=1",
    ]
    shown = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    asked = ["study", "forgetting", '--text="$LAB_TEXT"', "--"]
    settings = ["preset=smoke", "results_dir=results", "engine.jobs=auto", '--model="$LAB_MODEL"', "seed=1"]
    assert shown.split("-m lora_lab ")[1].split() == [*asked, *settings]


def test_there_are_commands_to_check() -> None:
    assert len(MAKE) > 40 and len(LAB) > 15


@pytest.mark.parametrize("name", ["settings", "api"])
def test_the_reference_is_current(name: str) -> None:
    from analysis import reference

    page = (reference.DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert page == getattr(reference, f"{name}_page")(), "run `python -m analysis.reference`"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is in the extra `docs`")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in ("index.html", "docs/quickstart/index.html", "results/desk/claims/index.html"):
        assert (tmp_path / "site" / page).is_file(), page
    assert "rank_ablation.png" in (tmp_path / "site" / "docs" / "which-rank" / "index.html").read_text()
