"""Names of models, tasks and adapters are anybody's: in what is written for people they are text, and nothing else.

Markdown: no HTML but our own anchors and folds. CSV: no cell that a spreadsheet would take for a formula. Cells of
markdown tables are `kit.tables.markdown`'s.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

CODE = re.compile(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)")  # within a line; in it markup is text
TAG = re.compile(r"(?<!\\)((?:\\\\)*)<(?=[a-zA-Z/!?])")  # what begins HTML in markdown
BAR = re.compile(r"(?<!\\)\|")
OURS = re.compile(r'<a id="[\w.-]*"></a>|</?(?:details|summary)>')
# A number may begin with a sign, also one with a unit behind it.
FORMULA = re.compile(r"[=@\t\r]|[+-](?!(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:[ %]|$)|inf$)")


def make_safe(paths: Iterable[Path]) -> None:
    """Rewrite those of the files, markdown and CSV, in which something would be more than text."""
    for path in paths:
        safe = {".md": markdown_text, ".csv": csv_text}.get(path.suffix)
        if safe is not None:
            with path.open(encoding="utf-8", newline="") as file:
                text = file.read()
            if (made := safe(text)) != text:
                path.write_text(made, encoding="utf-8", newline="")


def markdown_text(text: str) -> str:
    """The same page with every tag that is not ours shown as it is written."""
    return "\n".join(map(_line, text.split("\n")))


def _line(line: str) -> str:
    if not TAG.search(line):
        return line
    if line.lstrip().startswith("|"):  # a table's: code ends with its cell
        return "|".join(map(_span, BAR.split(line)))
    return _span(line)


def _span(line: str) -> str:
    parts, place = [], 0
    for kept in sorted([*CODE.finditer(line), *OURS.finditer(line)], key=lambda match: match.start()):
        if kept.start() >= place:
            parts += [TAG.sub(r"\1&lt;", line[place : kept.start()]), kept[0]]
            place = kept.end()
    return "".join([*parts, TAG.sub(r"\1&lt;", line[place:])])


def csv_text(text: str) -> str:
    """The same table with an apostrophe before every cell that would be a formula: spreadsheets show the rest as text.
    A table without such cells is the same to the byte."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if not any(FORMULA.match(cell) for row in rows for cell in row):
        return text
    made = io.StringIO(newline="")
    csv.writer(made, lineterminator="\n").writerows([_cell(cell) for cell in row] for row in rows)
    return made.getvalue()


def _cell(cell: str) -> str:
    return f"'{cell}" if FORMULA.match(cell) else cell
