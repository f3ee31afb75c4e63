"""Names of files, folders and columns that are no words of a shell, of make or of Hydra."""

import os
import subprocess
from pathlib import Path
from random import Random

import pytest
from fuzzing import outcomes
from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments import own

NAMES = [
    *("my file.csv", "d\u00e9j\u00e0.csv", "a=b.csv", "a,b.csv", "a(1).csv", "it's.csv", "a#b.csv", "~a.csv"),
    *("a$b.csv", "${seed}.csv", "\\${seed}.csv", "$(HOME).csv", "a;b.csv", 'a"b.csv', "a\\", "a\\'b", "{a: 1}", "1"),
    *("null.csv", "true", "1e3", "!a", "&", "*", "?", "`id`", "%s", "@{x}", "\U0001f600", " a ", "a\tb", "-a", "+a"),
    *("[a].csv", "a:b", "x,", "\u00dcberschrift"),
]  # fmt: skip


def value(line: str) -> str:
    """What Hydra and OmegaConf make of an override's value, without composing all of the config, which takes longer."""
    read = OverridesParser.create().parse_override(line)
    return str(OmegaConf.to_container(OmegaConf.create({"seed": 5, "x": read.value()}), resolve=True)["x"])  # type: ignore[index,call-overload]


def read_back(*arguments: str) -> tuple[str, str]:
    """What Hydra makes of a command line, alone and in a sweep: task.path and task.label_column."""
    overrides = own.typed(arguments)
    sweep = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides([*overrides, "seed=0,1"]), None)
    seen = []
    for line in (overrides, *sweep[0]):
        given = {part.partition("=")[0]: part for part in line}
        seen.append(tuple(value(given[key]) if key in given else "" for key in ("task.path", "task.label_column")))
    assert len(seen) == 3 and len(set(seen)) == 1
    return seen[0][0], seen[0][1]


@pytest.fixture(scope="module", autouse=True)
def hydra() -> object:
    with initialize_config_module("experiments.conf", version_base="1.3"):
        yield


@pytest.mark.parametrize("name", NAMES)
def test_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_back("--task", name)[0] == name
    assert own.places("", name, [], own.FILES) == {"task.path": name}
    Path(name).write_text("text,label\n")
    assert read_back("task=local", f"task.path={name}")[0] == name
    assert own.places("", "", [f"task.path={name}", "seed=0,1"], own.FILES) == {"task.path": name}


@pytest.mark.parametrize("name", ["\\${seed} it's, [a]=(b) #$1 \u00fc.csv"])
def test_the_whole_config_has_the_name(name: str) -> None:
    task = compose("config", own.chosen("", name)).task
    assert OmegaConf.to_container(OmegaConf.masked_copy(task, ["path"]), resolve=True) == {"path": name}


def test_columns_and_what_is_no_name() -> None:
    for column in ("\u00dcberschrift", "my column", "a(b)", "1", "true", "a=b"):
        assert read_back("task=local", f"task.label_column={column}")[1] == column
    assert own.typed(["task.path=null", "task.path='x'", "method.r=1,2", "-m", "task.path=a.csv,b.csv"]) == [
        *("task.path=null", "task.path='x'", "method.r=1,2", "-m", "task.path=a.csv,b.csv"),
    ]
    assert own.typed(["--model", "minilm", "--task=glue/sst2", "--task", ""]) == ["model=minilm"]
    assert own.typed(["--task=_glue"]) == ["task=local", "task.path='_glue'"]


def test_fuzz_names() -> None:
    letters = "ab'\"\\$${}[]()=,#~ \u00fc:;*?%@!&|<>\t-+./"

    def attempt(random: Random) -> str:
        name = "".join(random.choice(letters) for _ in range(random.randrange(1, 9)))
        assert value(own.chosen("", name)[1]) == name
        assert own.places("", name, [], own.FILES) == {"task.path": name}
        return "read"

    assert outcomes(attempt, share=1)


@pytest.mark.parametrize("name", ["my file.csv", "it's $5, [a] (b) #1 = d\u00e9j\u00e0~.csv"])
def test_make_hands_names_on(name: str, tmp_path: Path) -> None:
    """What the shell would run, with a program in the place of python that prints its arguments."""
    shown = tmp_path / "python"
    shown.write_text('#!/bin/sh\nfor argument; do printf "%s\\n" "$argument"; done\nexit 7\n')
    shown.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "ablate-rank", f"PYTHON={shown}", "READY=", f"TASK={name}", f"MODEL={name}"]
    command += [f"RESULTS={tmp_path}/results"]
    older = tmp_path / "results" / "quick" / "rank_ablation" / "sweep.jsonl"
    older.parent.mkdir(parents=True)
    older.write_text('{"run_id": "0", "role": "study"}\n')
    os.utime(older, (0, 0))
    root = Path(own.__file__).parents[1]
    made = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    lines = made.stdout.splitlines()
    assert {f"--model={name}", f"--task={name}", "rank_ablation"} <= set(lines)
    assert made.returncode != 0 and "analysis.study" not in lines  # no run was begun: the list is an older one
