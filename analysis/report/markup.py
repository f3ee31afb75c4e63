"""Markdown of the studies as parts of the page: safe, headings one step lower, wide tables in a box of their own."""

import html
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

LONG = 24  # rows of a table from which on it is folded
WIDE = 60  # characters of a cell from which on it may be broken into lines
UNNEEDED = ("th_close", "td_close", "tr_close")  # HTML does without; a tenth of a page of tables
PAPER = "paper"  # how rows of the paper's numbers begin
INTERVAL = re.compile(r"(?P<mean>[-+]?\d*\.?\d+) ± (?P<half>\d*\.?\d+)(?: \((?P<n>\d+)\)|, p )")
BROAD = 10  # points of half an interval from which on it is marked, as is half the mean
VAGUE = (
    '<p class="soft vague-note"><span class="vague">Underlined</span>: an interval so wide that these runs say little '
    "of the mean. Student's t takes 12.7 standard errors with 2 runs, 4.3 with 3 and 2.8 with 5.</p>"
)
LOWER = 2  # levels by which headings go down in report.md: a study's `##` is two below the section's


# The number of the runs behind a cell, from the headings above the table, its head, its row and the cell's column.
Cells = Callable[[str, Sequence[str], Sequence[str], int], int | None]


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


def parts(text: str, folder: str, cells: Cells | None = None) -> list[Part]:
    """The parts of a study's table.md, whose title (a heading of the first level) is left out; cells: of `Cells`."""
    tokens = _without_title(_parser().parse(text))
    _mark(tokens, cells)
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


def _mark(tokens: Sequence[Token], cells: Cells | None) -> None:
    """Gives cells the number of their runs, and those with a wide interval a class."""
    places: dict[str, str] = {}  # by level
    head: list[str] = []
    starts = [number for number, token in enumerate(tokens) if token.type in ("heading_open", "tr_open")]
    for start in starts:
        if (level := tokens[start].tag) != "tr":
            places = {tag: text for tag, text in places.items() if tag < level} | {level: tokens[start + 1].content}
            continue
        end = next(n for n in range(start, len(tokens)) if tokens[n].type == "tr_close")
        row = [_text(token) for token in tokens[start:end] if token.type == "inline"]
        opened = [token for token in tokens[start:end] if token.type in ("th_open", "td_open")]
        if opened[0].type == "th_open":
            head = row
            if not head[0]:
                opened[0].tag = "td"  # a head without a name is none
            continue
        for column, (token, text) in enumerate(zip(opened, row, strict=True)):
            if not row[0].startswith(PAPER) and not head[column].startswith(PAPER) and re.search(r"\d", text):
                number = cells(" ".join(places.values()), head, row, column) if cells else None
                token.attrs |= {} if number is None else {"data-s": number}
            if _vague(text):
                token.attrs["class"] = "vague"


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or ())


def _vague(text: str) -> bool:
    """Whether it is a mean with its n, or a difference with its p, whose interval is wide."""
    found = INTERVAL.match(text)
    if not found:
        return False
    mean, half = abs(float(found["mean"])), float(found["half"])
    return (half > BROAD and mean <= 100) or (found["n"] is not None and half > mean / 2)


def _render(tokens: Sequence[Token], folder: str) -> str:
    parser = _parser()
    shown: list[Token] = []
    rows, opened = _rows(tokens), 0
    for number, token in enumerate(tokens):
        _adapt(token, folder)
        if token.type == "td_open" and len(tokens[number + 1].content) > WIDE:
            token.attrs["class"] = f"{token.attrs.get('class', '')} long".strip()
        if token.type == "tr_open" and tokens[number + 2].content.startswith(PAPER):
            token.attrs["class"] = "paper"
        if token.type == "table_open":
            count, opened = rows.pop(0), number
            fold = f"<details><summary>Table of {count} rows</summary>" if count >= LONG else ""
            shown += [_raw(f'{fold}<div class="wide" tabindex="0" role="group" aria-label="table">'), token]
        elif token.type == "table_close":
            note = VAGUE if any("vague" in str(cell.attrs.get("class", "")) for cell in tokens[opened:number]) else ""
            shown += [token, _raw(f"</div>{note}" + ("</details>" if count >= LONG else ""))]
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
        token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"  # below the section's h2, a part's h3
    if token.type in ("th_open", "td_open"):
        token.attrs.pop("style", None)  # the page aligns cells
    token.hidden = token.hidden or token.type in UNNEEDED
    for child in token.children or ():
        target = str(child.attrs.get("href", ""))
        if folder and target and ":" not in target and not target.startswith(("#", "/")):
            child.attrs["href"] = f"{folder}/{target}"
