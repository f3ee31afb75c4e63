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
