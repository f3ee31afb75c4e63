"""report.html: one file, with its style, its script, the runs behind its numbers, and copies of the figures in it."""

import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report import markup
from analysis.report.content import ABOUT, Report
from analysis.report.pictures import Picture
from analysis.report.section import Section

STATIC = ("report.css", "report.js")


class Shown(NamedTuple):
    """A part of a study's table.md, and whether the page shows it unfolded."""

    title: str
    html: str
    open: bool


def page(report: Report) -> Callable[[Mapping[Path, Picture]], str]:
    """What makes the page of its pictures; of the extra figures those that have none are links."""
    templates = Environment(
        loader=PackageLoader("analysis.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters |= {
        "inline": lambda text: Markup(markup.inline(text)),
        "block": lambda text: Markup(markup.block(text)),
        "plain": markup.plain,
        "first_sentence": lambda text: re.split(r"(?<=\.) ", text)[0],
        "json": lambda data: Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
    }
    style, script = (Markup(files("analysis.report").joinpath(name).read_text("utf-8")) for name in STATIC)
    anchors = {section.entry.folder: section.entry.title for section in report.sections}
    bodies = {
        section.entry.folder: [(name, parts(text, section)) for name, text in section.tables]
        for section in report.sections
    }
    template = templates.get_template("report.html.j2")

    def write(pictures: Mapping[Path, Picture]) -> str:
        return template.render(
            report=report, about=ABOUT, pictures=pictures, style=style, script=script, anchors=anchors, bodies=bodies
        )

    return write


def parts(text: str, section: Section) -> list[Shown]:
    """The parts of a table.md: open are what stands before its headings and, if that has no table, the first part that
    has one. Paragraphs alone before the headings say how to read what follows: they are folded."""
    found = markup.parts(text, section.entry.folder, section.runs.mark)
    first = next((part for part in found if part.tables), None)
    shown = []
    for part in found:
        prose = not (part.title or part.tables or part.lists) and len(found) > 1
        shown.append(Shown("How to read it" if prose else part.title, part.html, part is first))
    return shown
