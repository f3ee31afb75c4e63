"""Names that are HTML, that break tables or that a spreadsheet would compute: shown as they are, and nothing more."""

import csv
import io
from pathlib import Path
from random import Random

import pandas as pd
import pytest
from fuzzing import outcomes
from markdown_it import MarkdownIt

from analysis.kit.safe import csv_text, make_safe, markdown_text
from analysis.kit.tables import markdown

DESK = Path(__file__).parents[2] / "results" / "desk"
BAD = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "a\nb",
    "x < y",
    "`<b>`",
    "a\\|b",
    "<!-- ",
    "</td>",
]


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


@pytest.mark.parametrize("name", BAD)
def test_a_name_is_text(name: str) -> None:
    table = markdown(pd.DataFrame({"task": [name, "other"], name: ["1", "2"]}))
    page = markdown_text(f"## {' '.join(name.split())}\n\n{table}\n")
    shown = rendered(page)
    assert [shown.count(f"<{tag}") for tag in ("td", "th ", "tr>")] == [4, 2, 3]
    for tag in ("<script", "<img", "<b>", "<!--"):
        assert tag not in shown


def test_our_own_tags_and_code_stay() -> None:
    page = '### <a id="1"></a>1. r < 8 in `<code>`\n<details><summary>more</summary>\n\\<b> <b>\n</details>\n'
    assert markdown_text(page) == page.replace(" <b>", " &lt;b>")


@pytest.mark.parametrize("path", sorted(DESK.rglob("*.md")), ids=lambda path: str(path.relative_to(DESK)))
def test_committed_pages_are_as_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert markdown_text(text) == text


def test_committed_tables_are_as_they_are() -> None:
    for path in DESK.rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        assert csv_text(text) == text, path


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+1+cmd|'/C calc'!A0", "-2+3", "\t=1", "=", "-x", "+A1"])
def test_formulas_are_text(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame({"task": [cell, "b"], "value": [-0.5, 1e-9]}).to_csv(path, index=False)
    make_safe([path])
    read = pd.read_csv(path, dtype=str)
    assert list(read["task"]) == ["'" + cell, "b"]
    assert list(read["value"]) == ["-0.5", "1e-09"]


@pytest.mark.parametrize("cell", ["-0.5", "+3", "-1e-05", "-13.5 GB: more", "-inf", "- a", "a=1", "-5%", ""])
def test_numbers_are_numbers(cell: str) -> None:
    text = f'"x","{cell}"\r\n'
    changed = cell == "- a"  # a spreadsheet takes it for minus the name a
    assert (csv_text(text) != text) == changed


def test_fuzz_pages() -> None:
    pieces = [*BAD, "`", "``", "<", ">", "a", " ", "\\", "|", "[x](y)", "<details>", '<a id="x"></a>', "<a id=x>", "="]

    def made(random: Random) -> str:
        return "".join(random.choice(pieces) for _ in range(random.randrange(1, 8)))

    def attempt(random: Random) -> str:
        names = made(random), made(random)
        table = markdown(pd.DataFrame({"a": names[:1], "b": names[1:]}))
        page = markdown_text(f"## {' '.join(names[0].split())}\n\n{table}")
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
        html = [t.content for token in tokens for t in [token, *(token.children or [])] if t.type.startswith("html")]
        assert set(html) <= {"<details>", "</details>", '<a id="x">', "</a>"}, (names, html)
        assert sum(token.type == "td_open" for token in tokens) == 2, names
        table = io.StringIO()
        csv.writer(table).writerow(names)
        cells = next(csv.reader([csv_text(table.getvalue())]))
        assert [cell.removeprefix("'") for cell in cells] == list(names) and not cells[0].startswith(("=", "@"))
        return "text"

    assert outcomes(attempt)
