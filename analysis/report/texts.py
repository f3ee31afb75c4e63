"""The parts of README and docs that are made: what the scoreboard says, and the table paper item -> command -> result.

python -m analysis.report.texts     writes them anew

`<!--claim KEY: VERDICT-->…<!--/-->` holds the estimate, interval and verdict of a claim, from results/desk/claims.csv.
VERDICT is the one for which the sentence around it was written: with another the sentence has to be written anew.
`<!--studies-->…<!--/-->` holds a row a study, from its YAML and the files of results/desk.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from analysis.report import entries
from lora.config import InputError

ROOT = Path(__file__).parents[2]
DESK = ROOT / "results" / "desk"
PART = re.compile(r"<!--(studies|claim (?P<key>\w+): (?P<verdict>[\w ]+))-->.*?<!--/-->", re.S)
BEGINS = re.compile(r"^ *<!--claim", re.M)
CHINESE = yaml.safe_load((Path(__file__).parents[1] / "chinese.yaml").read_text(encoding="utf-8"))
PICTURES = 4  # of a study, in the table, at most


def pages() -> Iterator[Path]:
    """README in both languages and docs."""
    yield from (ROOT / "README.md", ROOT / "README.zh-CN.md")
    yield from sorted((ROOT / "docs").rglob("*.md"))


def made(path: Path) -> str:
    """The text of a page with its parts made anew.

    Raises InputError for a claim that there is not, for one with another verdict than its sentence was written for,
    and for one that begins a line.
    """
    chinese = path.name.endswith(".zh-CN.md")

    def part(match: re.Match[str]) -> str:
        if match["key"] is None:
            text = f"\n\n{studies(path, chinese)}\n\n"
        else:
            text = _claim(path, match["key"], match["verdict"], chinese)
        return f"<!--{match[1]}-->{text}<!--/-->"

    text = path.read_text(encoding="utf-8")
    if BEGINS.search(text):
        raise InputError(
            f"{path.name}: a line begins with <!--claim, so that GitHub shows it as it is: put a word before"
        )
    return PART.sub(part, text)


def _claim(path: Path, key: str, verdict: str, chinese: bool) -> str:
    table = pd.read_csv(DESK / "claims.csv")
    found = table[table["claim"] == key]
    if found.empty:
        raise InputError(f"{path.name}: no claim is called {key}")
    row = found.iloc[0]
    if row["verdict"] != verdict:
        raise InputError(f"{path.name}: {key} is now {row['verdict']}, not {verdict}: write its sentence anew")
    words = CHINESE["words"] if chinese else {}
    link = f"[{words.get(verdict, verdict)}]({_link(path, DESK / 'claims.md')}#{row['number']})"
    if pd.isna(row["estimate"]):
        return link
    unit = "" if pd.isna(row["unit"]) else str(row["unit"])
    value, low, high = (_number(row[name], unit) for name in ("estimate", "low", "high"))
    suffix = words.get(unit, unit) if unit in ("×", "%") else f" {words.get(unit, unit)}" if unit else ""
    between = "" if low == high else f"{low} {words.get('to', 'to')} {high}{words.get('; ', '; ')}"
    return f"{value}{suffix}{words.get(' (', ' (')}{between}{link}{words.get(')', ')')}"


def _number(value: float, unit: str) -> str:
    if unit == "×":
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    if unit == "%":
        return f"{100 * value:.1f}"
    if unit.startswith("points"):
        return f"{100 * value:+.1f}".replace("-0.0", "+0.0")
    return f"{value:+.2f}"


def _link(page: Path, target: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def studies(page: Path, chinese: bool = False) -> str:
    """A table with a row a study: what the paper has of it, the command, its page and its first pictures of `desk`."""
    head = CHINESE["head"] if chinese else ["paper", "what", "command", "result"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- | --- | --- |"]
    for entry in entries.load():
        folder = DESK / entry.folder
        names = sorted((path.name for path in folder.glob("*.png")), key=lambda name: (len(name), name))
        first = [one for one in entry.figures if one.show in ("large", "map")]
        fits = [[name for name in names if entry.caption(name) == one] for one in first]
        found = [*(["table.md"] if (folder / "table.md").is_file() else []), *(one[0] for one in fits if one)]
        found = found[: PICTURES + 1] or [path.name for path in sorted(folder.glob("*.md"))]
        links = ", ".join(f"[{Path(name).stem}]({_link(page, folder / name)})" for name in found)
        paper, title = entry.paper, entry.title
        if chinese:
            title = CHINESE["titles"][entry.folder]
            for english, word in CHINESE["paper"].items():
                paper = re.sub(english, word, paper)
        lines.append(f"| {paper} | {title} | `make {entry.make}` | {links or CHINESE['none'][not chinese]} |")
    return "\n".join(lines)


def main() -> int:
    """Command line entry: writes the pages whose parts have changed; 2 with one line on stderr if one cannot be."""
    try:
        for path in pages():
            text = made(path)
            if text != path.read_text(encoding="utf-8"):
                path.write_text(text, encoding="utf-8")
                print(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
