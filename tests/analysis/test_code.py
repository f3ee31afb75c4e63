"""What of the code a study's tables depend on: made-up packages, so that nothing else is there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.kit import code

FILES = {
    "analysis/__init__.py": "",
    "analysis/studies/__init__.py": "",
    "analysis/studies/one.py": '"""One."""\nfrom analysis.kit import a\n\nX = "a" in {"x", "y", "z"}\nPAPER = "t1"\n',
    "analysis/studies/other.py": "X = 1\n",
    "analysis/kit/__init__.py": "",
    "analysis/kit/safe.py": "S = 1\n",
    "analysis/kit/a.py": 'def f(x):\n    """Doc."""\n    from ..maths.b import g\n\n    return g(x) + 1  # why\n',
    "analysis/kit/unused.py": "U = 1\n",
    "analysis/maths/__init__.py": "",
    "analysis/maths/b.py": "import lora.c\n\n\ndef g(x):\n    return lora.c.H * x\n",
    "lora/__init__.py": "",
    "lora/c.py": "H = 2\n",
    "analysis/paper/t1.csv": "1\n",
    "analysis/paper/t2.csv": "2\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def changes(root: Path) -> Callable[[str, str, str], bool]:
    """Whether the digest of study `one` changes where the text of a file does."""

    def check(name: str, old: str, new: str) -> bool:
        before, path = code.digest("one", root), root / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return code.digest("one", root) != before

    return check


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("analysis/studies/one.py", '"z"', '"w"'),
        ("analysis/kit/a.py", "+ 1", "+ 2"),
        ("analysis/kit/safe.py", "1", "2"),
        ("analysis/maths/b.py", "* x", "+ x"),
        ("analysis/maths/b.py", "lora.c.H", "lora.c.J"),
        ("lora/c.py", "2", "3"),
        ("analysis/paper/t1.csv", "1", "2"),
    ],
)
def test_what_a_study_does_counts(changes: Callable[[str, str, str], bool], name: str, old: str, new: str) -> None:
    assert changes(name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("analysis/studies/one.py", '"""One."""', '# first\n"""Another."""\n'),
        ("analysis/kit/a.py", '"""Doc."""', '"""Doc, in\n\n    several lines."""'),
        ("analysis/kit/a.py", "  # why", ""),
        ("analysis/kit/unused.py", "1", "2"),
        ("analysis/studies/other.py", "1", "2"),
        ("analysis/paper/t2.csv", "2", "3"),
    ],
)
def test_words_and_what_is_not_imported_do_not(
    changes: Callable[[str, str, str], bool], name: str, old: str, new: str
) -> None:
    assert not changes(name, old, new)


def test_the_versions_of_what_computes_and_draws_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.digest("one", root)
    monkeypatch.setattr(code, "version", lambda name: "0")
    assert code.digest("one", root) != before


def test_it_is_the_same_in_another_process(root: Path) -> None:
    program = f"import pathlib; from analysis.kit import code; print(code.digest('one', pathlib.Path({str(root)!r})))"
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            check=True, cwd=code.ROOT,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_all_that_python_itself_loads_of_ours_is_found() -> None:
    program = "import sys, analysis.studies.rank_ablation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=code.ROOT)
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] in code.PACKAGES}
    # What is loaded by way of experiments reads and checks runs, and is not followed.
    assert loaded - set(code.modules("rank_ablation")) <= {name for name in loaded if name.startswith("lora")}


def test_a_study_in_a_folder_begins_with_its_study_module() -> None:
    found = code.modules("subspace")
    assert {"analysis.studies.subspace.study", "analysis.studies.subspace.tables", "analysis.maths.subspace"} <= set(
        found
    )
