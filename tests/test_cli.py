"""`lora-lab`: what it finds, what it says of a wrong name, and the wheel in an environment of its own."""

import importlib
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lora_lab import cli
from lora_lab.commands import COMMANDS, Command, available

ROOT = Path(__file__).parents[1]
PARSED = [command for command in available().values() if command.own_help]


def call(monkeypatch: pytest.MonkeyPatch, *typed: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lora-lab", *typed])
    try:
        return cli.main()
    except SystemExit as error:  # argparse, after --help
        return int(error.code or 0)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lora_lab.cli import main; sys.argv[1:] = sys.argv[1:]; assert main() == 0;"
        "print(sorted({'torch', 'transformers', 'hydra', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    for line in (["--help"], ["study", "--help"], ["run", "--help"], []):
        done = subprocess.run([sys.executable, "-c", code, *line], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
        assert "lora-lab study rank_ablation" in done.stdout or "lora-lab run" in done.stdout


def test_what_is_listed_is_there() -> None:
    missing = {command.name for command in COMMANDS} - set(available())
    assert missing <= {"advise"}, "a module may come later than its line in the list"
    for command in available().values():
        module, _, function = command.where.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("command", PARSED, ids=lambda command: command.name)
def test_help_of_a_command_is_its_own_under_the_name_that_was_typed(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, command.name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: lora-lab {command.name} ")
    assert said.endswith("\nexamples:\n" + "".join(f"  {example}\n" for example in command.examples))


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["stuy", "rank_ablation"], "error: unknown command stuy; did you mean study?\n"),
        (["study", "rank-ablaton"], "error: unknown study 'rank-ablaton'; did you mean rank_ablation?\n"),
        (["bench", "trainign"], "error: unknown benchmark 'trainign'; did you mean training?\n"),
        (["--vresion"], "error: No such option"),
        (["study", "rank_ablation", "preset=smok"], "error: unknown preset smok; did you mean smoke?\n"),
        (["run", "method.rr=4"], "error: unknown setting method.rr; did you mean method.r?\n"),
        (["run", "trakcer=wandb"], "error: unknown setting trakcer; did you mean tracker?\n"),
        (
            ["extract", "a", "--out", "x", "--rank", "2", "--bse=x"],
            "error: unknown option --bse; did you mean --base?\n",
        ),
        (["memory", "--modle", "x"], "error: unknown option --modle; did you mean --model?\n"),
        (["claims", "results", "--al"], "error: unknown option --al; there are: --help\n"),
        (["tables", "results", "--bse=x"], "error: unknown option --bse; did you mean --base?\n"),
        (["report", "results", "--limt", "9"], "error: unknown option --limt; did you mean --limit?\n"),
        (["records", "exprt", "results"], "error: command = exprt; did you mean export?\n"),
        (["records", "export", ".", "--to", "wand", "--out", "x"], "error: --to = wand; did you mean wandb?\n"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(
    typed: list[str], error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *typed) == 2
    said = capsys.readouterr().err
    assert said.startswith(error) and said.count("\n") == 1


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.compare.__main__.main", stopped)
    assert call(monkeypatch, "compare", "a", "b") == 130
    assert capsys.readouterr().err.split() == ["interrupted"]


def test_a_benchmark_says_which_package_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bench.section7", None)
    assert call(monkeypatch, "bench", "section7") == 2
    assert capsys.readouterr().err.endswith("needs the package bench.section7: pip install 'lora-lab[dev]'\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("lora-lab st", {"study"}),
        ("lora-lab study rank_", {"rank_ablation", "rank_data", "rank_generation"}),
        ("lora-lab study rank_ablation preset=d", {"preset=desk", "preset=desk1"}),
        ("lora-lab run task = glue/ss", {"glue/sst2"}),  # as bash takes task=glue/ss apart
        ("lora-lab run me", {"method="}),
    ],
)
def test_the_shell_completes_names(words: str, found: set[str]) -> None:
    parts = words.split()
    environment = {"_LORA_LAB_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    line = [sys.executable, "-m", "lora_lab"]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert {one.partition(",")[2] for one in done.stdout.splitlines()} == found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but our wheel, that borrows the installed packages of this one, but for those of its
    extras; its bin folder."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    for name in filter(None, files.stdout.split("\0")):
        if not name.startswith(("results/", "tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", str(source), "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(place)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = place.glob("*.whl")
    assert wheel.stat().st_size < 1_000_000
    venv.create(place / "env", symlinks=True)
    inside = place / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", str(inside), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (place / "env").glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name == "site-packages"]
    extras = "import sys; sys.modules.update(dict.fromkeys(('bitsandbytes', 'hqq', 'pycocoevalcap', 'peft')))"
    (packages / "borrowed.pth").write_text("\n".join([*borrowed, extras]) + "\n")
    return inside.parent


def test_the_wheel_runs_a_study_in_another_folder(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [str(installed / "lora-lab"), "study", "rank_ablation", "preset=smoke"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    study = tmp_path / "results" / "smoke" / "rank_ablation"
    assert (study / "table.md").is_file() and (study / "rank_ablation.png").stat().st_size > 10_000
    where = [str(installed / "python"), "-c", "import analysis; print(analysis.__file__)"]
    place = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert place.startswith(str(installed.parent))
