"""What a study says of itself in its YAML, beside what the Makefile and the README say."""

import re
from pathlib import Path

import pytest

from analysis import study
from analysis.report import entries
from experiments.records.sweep import make_command

ROOT = Path(__file__).parents[2]
LISTED = {entry.folder: entry for entry in entries.load()}
STUDIES = study.known()
NUMBER = re.compile(r"[A-Z]?\.?\d+(?:\.\d+)?")


def rows_of(target: str) -> list[str]:
    """What the README's table says the paper has, in the rows with a make target."""
    found = []
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        item, _, command, *_ = [*line.strip("|").split(" | "), "", "", ""]
        if line.startswith("|") and re.search(rf"`make {target}[ `]", command):
            found.append(item)
    return found


def test_every_study_has_a_yaml_and_every_yaml_a_study() -> None:
    assert sorted(LISTED) == sorted([*STUDIES, "bench", "advice-study"])
    assert len({entry.order for entry in LISTED.values()}) == len(LISTED)


@pytest.mark.parametrize("name", STUDIES)
def test_its_target_is_in_the_makefile_and_with_the_papers_item_in_the_readme(name: str) -> None:
    entry = LISTED[name]
    assert make_command(Path("results/quick") / name) == f"make {entry.make} PRESET=quick"
    assert re.search(rf"^{entry.make}: .*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    rows = rows_of(entry.make)
    assert rows, f"the README's table has no `make {entry.make}`"
    if not entry.paper.startswith("beyond"):
        assert set(NUMBER.findall(entry.paper)) <= set(NUMBER.findall(" ".join(rows))), rows


def test_the_worked_example_is_the_study_itself() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    module = (ROOT / "analysis" / "studies" / "rank_ablation.py").read_text(encoding="utf-8")
    assert example.startswith("STUDY = Study(")
    assert module.endswith(example)
    assert len(module.splitlines()) <= 60
