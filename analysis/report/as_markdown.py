"""report.md: the same content for where markdown is shown; figures and long tables are links to their files."""

from collections.abc import Iterator

from analysis.report.content import ABOUT, Report
from analysis.report.markup import escaped, lowered, plain
from analysis.report.scoreboard import Item
from analysis.report.section import Section

SHORT = 45  # lines of a study's table.md up to which it is shown


def write(report: Report) -> str:
    """The text of report.md."""
    return "\n\n".join(_blocks(report)) + "\n"


def _blocks(report: Report) -> Iterator[str]:
    yield from (f"# {report.title}", ABOUT, report.count, "## Contents")
    lines = ["- [Answers in short](#answers)"] * bool(report.board.items) + ["- [Claims](#claims)"]
    for section in report.sections:
        entry, state = section.entry, "" if section.done else f" ({section.state.partition(':')[0]})"
        about = f": {entry.paper}" if entry.paper else ""
        lines.append(f"- [{escaped(entry.title)}](#{entry.folder}){about}{state}")
    yield "\n".join(lines)
    if report.board.items:
        yield from ('<a id="answers"></a>', "## Answers in short", "\n".join(_answers(report)))
    yield from _claims(report)
    for section in report.sections:
        yield from _section(report, section)


def _answers(report: Report) -> Iterator[str]:
    for answer, item in report.board.answers:
        found = escaped(item.estimate or item.evidence) if item.rows else f"needs `{item.command}`"
        statement = escaped(item.claim.statement)
        yield f"- [{answer.question}](#{answer.study}) {statement} **{item.verdict}**: {found}"


def _claims(report: Report) -> Iterator[str]:
    board = report.board
    yield from ('<a id="claims"></a>', "## Claims")
    if board.problem:
        yield f"The claims cannot be judged: {escaped(board.problem)}"
        return
    counts = ", ".join(f"**{n}** {verdict}" for verdict, _, n in board.counts)
    more = " Each with its cases: [claims.md](claims.md)." if (report.results / "claims.md").is_file() else ""
    yield f"{counts}.{more}"
    yield "\n".join(["| no. | claim | source | verdict | evidence |", "|--:|:--|:--|:--|:--|", *map(_row, board.items)])


def _row(item: Item) -> str:
    evidence = escaped(item.evidence) if item.rows else f"needs `{item.command}`"
    cells = (
        str(item.number),
        escaped(item.claim.statement),
        escaped(item.claim.source),
        f"**{item.verdict}**",
        evidence,
    )
    return f"| {' | '.join(cells)} |"


def _section(report: Report, section: Section) -> Iterator[str]:
    entry = section.entry
    yield from (f'<a id="{entry.folder}"></a>', f"## {escaped(entry.title)}")
    yield f"{entry.paper} · `{section.command}`" if entry.paper else f"`{section.command}`"
    if not section.done:
        yield section.state
        return
    if entry.see:
        yield entry.see
    yield from (f"**{problem}**" for problem in section.problems)
    for figure in section.figures:
        if figure.show == "large":
            yield f"![{escaped(plain(figure.caption))}]({report.link(figure.path)})"
            yield f"*{figure.caption}*"
    for name, text in section.tables:
        short = text.count("\n") <= SHORT
        yield lowered(text) if short else f"The table: [{escaped(name)}]({report.link(section.folder / name)})"
    if further := sorted((figure.caption, figure.path) for figure in section.figures if figure.show != "large"):
        links = [f"- [{escaped(plain(caption))}]({report.link(path)})" for caption, path in further]
        yield "\n".join(["Further figures:", "", *links])
    if entry.differs:
        yield f"> **Not as in the paper.** {entry.differs}"
    if items := report.judged_on(section):
        yield f"Claims judged on it: {', '.join(f'{item.number} ({item.verdict})' for item in items)}."
    yield from _made(report, section)


def _made(report: Report, section: Section) -> Iterator[str]:
    lines = [f"- {name}: {escaped(value)}" for name, value in section.made.facts]
    if section.made.run_ids:
        lines.append(f"- run ids: {escaped(' '.join(section.made.run_ids))}")
    links = [f"[{escaped(path.name)}]({report.link(path)})" for path in section.linked]
    lines.append(f"- files: {', '.join(links)}")
    yield from ("<details><summary>How it was made, and its files</summary>", "\n".join(lines), "</details>")
