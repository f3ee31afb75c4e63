from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pages import Page

from analysis.report import markup

REPORT = """\
# Title

Prose with [a link](samples.md) and [another](https://arxiv.org/abs/1).

## First `part`

| a | b |
|:--|:--|
| 1 | a cell that is so long that a page of a table has to break it into lines, or it is wide |
| paper, GPT-3 | 2 |

### Below it

## Second

- item
"""


def test_parts_are_those_below_second_headings() -> None:
    first, table, second = markup.parts(REPORT, "study")
    assert [part.title for part in (first, table, second)] == ["", "First <code>part</code>", "Second"]
    assert [(part.tables, part.lists) for part in (first, table, second)] == [(0, 0), (1, 0), (0, 1)]
    assert Page(first.html).all("a", "href") == ["study/samples.md", "https://arxiv.org/abs/1"]
    assert "Title" not in first.html
    assert "<h4>Below it</h4>" in table.html
    assert Page(table.html).all("td", "class") == ["long"]
    assert Page(table.html).all("tr", "class") == ["paper"]


def test_a_table_is_in_a_box_and_folded_if_it_is_long() -> None:
    def table(rows: int) -> str:
        return markup.block("| a |\n|--:|\n" + "| 1 |\n" * rows)

    assert table(2).startswith('<div class="wide"')
    assert "<details>" not in table(markup.LONG - 1)
    assert table(markup.LONG).startswith(f"<details><summary>Table of {markup.LONG} rows</summary><div")
    assert table(markup.LONG).endswith("</table></div></details>")
    assert len(Page(table(3)).all("div", "class")) == 1
    assert "style" not in table(3)


def test_wide_intervals_are_marked_and_explained() -> None:
    wide = ("61.7 ± 48.1 (3)", "1.2 ± 0.7 (2)", "+2.4 ± 15.0, p 0.300")
    narrow = ("88.4 ± 7.8 (3)", "378.2 ± 14.1", "-0.2 ± 3.1, p 0.900", "70.0 (1)")
    for text in (*wide, *narrow):
        (part,) = markup.parts(f"# T\n\n| a | b |\n|--|--|\n| x | {text} |\n", "study")
        assert Page(part.html).all("td", "class") == ["vague"] * (text in wide), text
        assert ("so wide that these runs say little" in Page(part.html).text) == (text in wide)


def test_cells_have_the_number_of_their_runs_and_the_papers_have_none() -> None:
    asked = []

    def cells(place: str, head: list[str], row: list[str], column: int) -> int:
        asked.append((place, head[column], row[0]))
        return len(asked)

    table = "| | r = 1 | paper, r = 1 |\n|--|--|--|\n| q | **1** | 2 |\n| paper | 3 | 4 |\n"
    (part,) = markup.parts(f"# Title\n\n## Task\n\n### Part\n\n{table}", "study", cells)
    assert asked == [("Task Part", "r = 1", "q")]
    assert Page(part.html).all("td", "data-s") == ["1"]
    assert "<th></th>" not in part.html


def test_headings_go_down_and_the_title_goes() -> None:
    text = "# Title\n\ntext\n\n## Part\n\n```\n# code\n```\n\n#### Deep\n"
    assert markup.lowered(text) == "text\n\n#### Part\n\n```\n# code\n```\n\n###### Deep"


def test_html_in_markdown_is_text() -> None:
    assert markup.inline("<script>x</script> `<b>`") == "&lt;script&gt;x&lt;/script&gt; <code>&lt;b&gt;</code>"
    assert "<img" not in markup.block("![x](http://example.org/x.png)")
    assert "javascript" not in "".join(Page(markup.inline("[x](javascript:alert(1))")).all("a", "href"))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\\|`*_<>&[]!~#$\n")))
def test_escaped_text_reads_as_it_was_in_the_cell_of_a_table(text: str) -> None:
    table = f"| a |\n|---|\n| {markup.escaped(text)} |\n"
    page = Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(table).replace("\n", ""))
    assert page.text.removeprefix("a") == " ".join(text.split())
    assert {tag for tag, _ in page.elements} == {"table", "thead", "tbody", "tr", "th", "td"}
