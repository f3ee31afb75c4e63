"""Markdown of the studies as parts of the page: safe, headings one step lower, wide tables in a box of their own."""

import html
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

LONG = 24  # rows of a table from which on it is folded
WIDE = 60  # characters of a cell from which on it may be broken into lines
UNNEEDED = ("th_close", "td_close", "tr_close")  # HTML does without; a tenth of a page of tables
PAPER = "paper"  # how rows of the paper's numbers begin
LOWER = 2  # levels by which headings go down: a study's `##` is below the section's h2 and its parts' h3


class Part(NamedTuple):
    """What stands below one heading of the second level; the first part, before any, has no title. tables, lists: how
    many there are in it."""

    title: str
    html: str
    tables: int
    lists: int


@cache
def _parser() -> MarkdownIt:
    # Names of runs are anybody's: no HTML, and no pictures, which a page without other files cannot load.
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "autolink"])


def inline(text: str) -> str:
    """One line of markdown as HTML."""
    return str(_parser().renderInline(text))


def block(text: str, folder: str = "") -> str:
    """Markdown as HTML: relative links are of `folder`, tables are in a box that scrolls, long ones folded."""
    return _render(_parser().parse(text), folder)


def parts(text: str, folder: str) -> list[Part]:
    """The parts of a study's table.md, whose title (a heading of the first level) is left out."""
    tokens = _without_title(_parser().parse(text))
    starts = [i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    found = []
    for start, end in zip([0, *starts], [*starts, len(tokens)], strict=True):
        body, title = tokens[start:end], ""
        if start in starts:
            title, body = _render([tokens[start + 1]], folder), body[3:]
        if body:
            kinds = [token.type for token in body]
            counts = (kinds.count(kind) for kind in ("table_open", "bullet_list_open"))
            found.append(Part(title, _render(body, folder), *counts))
    return found


def lowered(text: str, levels: int = LOWER) -> str:
    """Markdown without its title and with every heading `levels` lower: to stand in a section of another page."""
    lines = text.split("\n")
    drop: set[int] = set()
    for token in _parser().parse(text):
        if token.type == "heading_open" and token.map:
            start, end = token.map
            if token.tag == "h1":
                drop.update(range(start, end))
            elif token.markup.startswith("#"):
                lines[start] = "#" * levels + lines[start]
    return "\n".join(line for number, line in enumerate(lines) if number not in drop).strip()


def escaped(text: str) -> str:
    """Text that markdown shows as it is, also in the cell of a table."""
    flat = " ".join(text.split())
    return "".join("\\" + char if char in "\\`*_[]|~#" else html.escape(char, quote=False) for char in flat)


def plain(text: str) -> str:
    """One line of our own markdown as text: of its markup it has code alone."""
    return text.replace("`", "")


def _without_title(tokens: list[Token]) -> list[Token]:
    kept: list[Token] = []
    inside = False
    for token in tokens:
        inside = inside or (token.type == "heading_open" and token.tag == "h1")
        if not inside:
            kept.append(token)
        inside = inside and token.type != "heading_close"
    return kept


def _render(tokens: Sequence[Token], folder: str) -> str:
    parser = _parser()
    shown: list[Token] = []
    rows = _rows(tokens)
    for number, token in enumerate(tokens):
        _adapt(token, folder)
        if token.type == "td_open" and len(tokens[number + 1].content) > WIDE:
            token.attrs["class"] = "long"
        if token.type == "tr_open" and tokens[number + 2].content.startswith(PAPER):
            token.attrs["class"] = "paper"
        if token.type == "table_open":
            count = rows.pop(0)
            fold = f"<details><summary>Table of {count} rows</summary>" if count >= LONG else ""
            shown += [_raw(f'{fold}<div class="wide" tabindex="0" role="region" aria-label="table">'), token]
        elif token.type == "table_close":
            shown += [token, _raw("</div></details>" if count >= LONG else "</div>")]
        else:
            shown.append(token)
    return str(parser.renderer.render(shown, parser.options, {})).replace(">\n<", "><").strip()


def _rows(tokens: Sequence[Token]) -> list[int]:
    """Of each table, how many rows its body has."""
    counts: list[int] = []
    for token in tokens:
        if token.type == "table_open":
            counts.append(-1)  # the head's
        elif token.type == "tr_open":
            counts[-1] += 1
    return counts


def _raw(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _adapt(token: Token, folder: str) -> None:
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{min(int(token.tag[1]) + LOWER, 6)}"
    if token.type in ("th_open", "td_open"):
        token.attrs.pop("style", None)  # the page aligns cells
    token.hidden = token.hidden or token.type in UNNEEDED
    for child in token.children or ():
        target = str(child.attrs.get("href", ""))
        if folder and target and ":" not in target and not target.startswith(("#", "/")):
            child.attrs["href"] = f"{folder}/{target}"
