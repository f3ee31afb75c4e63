"""report.html: one file, with its style and small copies of the figures in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report import markup
from analysis.report.content import ABOUT, Report
from analysis.report.pictures import Picture


class Shown(NamedTuple):
    """A part of a study's table.md, and whether the page shows it unfolded."""

    title: str
    html: str
    open: bool


def write(report: Report, pictures: Mapping[Path, Picture]) -> str:
    """The page with these pictures; of the extra figures those that have none are links."""
    templates = Environment(
        loader=PackageLoader("analysis.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters |= {
        "inline": lambda text: Markup(markup.inline(text)),
        "block": lambda text: Markup(markup.block(text)),
        "plain": markup.plain,
        "parts": parts,
    }
    style = Markup(templates.get_template("report.css").render())
    anchors = {section.entry.folder: section.entry.title for section in report.sections}
    page = templates.get_template("report.html.j2")
    return page.render(report=report, about=ABOUT, pictures=pictures, style=style, anchors=anchors)


def parts(text: str, folder: str) -> list[Shown]:
    """The parts of a table.md: open are what stands before its headings and, if that has no table, the first part that
    has one. Paragraphs alone before the headings say how to read what follows: they are folded."""
    found = markup.parts(text, folder)
    first = next((part for part in found if part.tables), None)
    shown = []
    for part in found:
        prose = not (part.title or part.tables or part.lists) and len(found) > 1
        shown.append(Shown("How to read it" if prose else part.title, part.html, part is first))
    return shown
