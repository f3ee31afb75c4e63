"""All studies of a preset on one page: `python -m analysis.report results/desk`.

Writes report.html, which holds its figures in small copies and needs no other file, and report.md, into the folder. A
study that is missing is listed with its command, and a file that is damaged with one line.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.kit.safe import make_safe
from analysis.report import as_html, as_markdown, entries, pictures, scoreboard, section
from analysis.report.content import Report
from experiments.arguments import Parser, program
from lora.config import InputError

LIMIT = 3_000_000


def write(results: Path, limit: int = LIMIT) -> tuple[str, list[str]]:
    """Writes both files into results/<preset>; returns a line on what was written, and one for each damaged file.

    limit: of report.html, in bytes. Figures are encoded as well as it allows. Raises InputError if there is no such
    folder, or if it allows too little.
    """
    if not results.is_dir():
        raise InputError(f"{results} is no folder; a study makes it, such as `make ablate-rank`")
    sections = section.find(results, entries.load())
    report = Report(results, sections, scoreboard.make(results))
    figures = [figure for found in sections for figure in found.figures]
    write_html = as_html.page(report)
    level, shown = pictures.fit(figures, limit - _size(write_html(pictures.blank(figures))))
    page = write_html(shown)
    (results / "report.html").write_text(page, encoding="utf-8")
    (results / "report.md").write_text(as_markdown.write(report), encoding="utf-8")
    make_safe([results / "report.md"])
    how = f"{len(shown)} figures, {level.width} (small: {level.small}) pixels wide, AVIF quality {level.quality}"
    if linked := len(figures) - len(shown):
        how += f"; {linked} more as links"
    problems = [f"{found.entry.folder}: {problem}" for found in sections for problem in found.problems]
    return f"report.html ({_size(page):,} of {limit:,} bytes; {how}), report.md", problems


def _size(text: str) -> int:
    return len(text.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0, or 2 with one line on stderr if the input cannot work."""
    parser = Parser(prog=program("analysis.report"), description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results/<preset>, where the study folders are")
    parser.add_argument("--limit", type=int, default=LIMIT, help="largest size of report.html in bytes (%(default)s)")
    try:
        options = parser.parse_args(arguments)
        written, problems = write(options.results, options.limit)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.results}: {written}")
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
