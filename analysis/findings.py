"""Which findings of FINDINGS.md are stale: `python -m analysis.findings`; `--written`: none any more.

findings.yaml, beside this file, has an entry for each finding: the tables that it was written from, with their digests
then; the verdicts of claims that it rests on; and `quotes`, texts whose numbers are made from a table and must stand in
the page as they are made. A finding is stale if a quote says otherwise, if a verdict is another, or if one of its
tables is another than the one it was written from: the rest of its numbers must then be looked at by eye.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from lora.config import InputError

ROOT = Path(__file__).parents[1]
PAGE, ENTRIES, TABLES = ROOT / "FINDINGS.md", Path(__file__).with_suffix(".yaml"), ROOT / "results" / "desk"
CLAIMS = "claims.csv"
_NUMBERS = re.compile(r"(?<![\w.])[+-]?\d[\d,]*(?:\.\d+)?")


class Stale(NamedTuple):
    """A finding, by the words that it begins with, and why it must be written anew."""

    finding: str
    why: str


def findings(page: str) -> dict[str, str]:
    """The items of the page that have a number, each on one line, by the words that they begin with, in bold."""
    items = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=\n\n|^- |\Z)", page, re.M | re.S)
    found = {" ".join(name.split()): " ".join(f"{name}{rest}".split()) for name, rest in items}
    return {name: text for name, text in found.items() if _NUMBERS.search(text)}


def stale(page: str, entries: Mapping[str, Any], tables: Path) -> list[Stale]:
    """What is stale, in the order of the page.

    Raises InputError for a finding without an entry, an entry without its finding, or a table that cannot be read.
    """
    there = findings(page)
    if lacking := [*(set(there) - set(entries)), *(set(entries) - set(there))]:
        raise InputError(f"{PAGE.name} and {ENTRIES.name} do not have the same findings: {'; '.join(sorted(lacking))}")
    return [Stale(name, why) for name, text in there.items() for why in _reasons(text, entries[name], tables)]


def _reasons(text: str, entry: Mapping[str, Any], tables: Path) -> Iterator[str]:
    for name, then in entry["tables"].items():
        if digest(tables / name) != then:
            yield f"{name} is not the table that it was written from"
    now = verdicts(entry, tables)
    for claim, then in entry.get("verdicts", {}).items():
        if now[claim] != then:
            yield f"claim {claim}: {now[claim]}, no longer {then}"
    for quote in entry.get("quotes", []):
        if (made := said(quote, tables)) not in text:
            yield f"{quote['of']} says: {made}"


def by_eye(page: str, entries: Mapping[str, Any], tables: Path) -> dict[str, tuple[int, int]]:
    """For each finding how many of its numbers no quote makes, and how many it has."""
    counts = {}
    for name, text in findings(page).items():
        left = text
        for quote in entries[name].get("quotes", []):
            left = left.replace(said(quote, tables), "")
        counts[name] = len(_NUMBERS.findall(left)), len(_NUMBERS.findall(text))
    return counts


def verdicts(entry: Mapping[str, Any], tables: Path) -> dict[str, str]:
    """The verdicts now of the claims that an entry names. Raises InputError for one that the scoreboard lacks."""
    if not entry.get("verdicts"):
        return {}
    digest(tables / CLAIMS)  # or there is none
    found = pd.read_csv(tables / CLAIMS).drop_duplicates("claim").set_index("claim")["verdict"]
    if lacking := [claim for claim in entry["verdicts"] if claim not in found.index]:
        raise InputError(f"{tables / CLAIMS} has no claim {lacking[0]}, which {ENTRIES.name} names")
    return {claim: str(found[claim]) for claim in entry["verdicts"]}


def digest(path: Path) -> str:
    """The first 12 hex digits of the SHA-256 of a table. Raises InputError if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); `make tables` makes it") from error


def said(quote: Mapping[str, Any], tables: Path) -> str:
    """The text of a quote with its numbers: `values`, expressions over the columns of the table `of`, of the rows
    `where`, row by row. Raises InputError if that gives not as many numbers as the text has places."""
    try:
        rows = pd.read_csv(tables / quote["of"])
        rows = rows.query(quote["where"]) if "where" in quote else rows
        columns = [rows.eval(text, engine="python") for text in quote["values"]]
        frame = pd.concat([pd.Series(column) for column in columns], axis=1)
        return str(quote["text"]).format(*frame.to_numpy().ravel())
    except (OSError, ValueError, KeyError, IndexError, SyntaxError, NameError, TypeError) as error:
        raise InputError(f"the quote {quote.get('text')!r} cannot be made: {' '.join(str(error).split())}") from error


def written(entries: Mapping[str, Any], tables: Path) -> dict[str, Any]:
    """The entries with the digests of the tables, and the verdicts, as they are now."""
    noted = {}
    for name, entry in entries.items():
        noted[name] = entry | {"tables": {table: digest(tables / table) for table in entry["tables"]}}
        if "verdicts" in entry:
            noted[name]["verdicts"] = verdicts(entry, tables)
    return noted


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: 0; 1 if a finding is stale, a line for each reason; 2 if the input cannot work."""
    parser = argparse.ArgumentParser(prog="python -m analysis.findings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--written", action="store_true", help="all were read again: note the tables as they are")
    options = parser.parse_args(arguments)
    try:
        entries = yaml.safe_load(ENTRIES.read_text(encoding="utf-8"))
        if options.written:
            entries = written(entries, TABLES)
            ENTRIES.write_text(
                yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=140), encoding="utf-8"
            )
        page = PAGE.read_text(encoding="utf-8")
        found = stale(page, entries, TABLES)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for one in found:
        print(f"{one.finding}: {one.why}")
    counts = by_eye(page, entries, TABLES)
    left, numbers = (sum(column) for column in zip(*counts.values(), strict=True))
    stale_ones = len({one.finding for one in found})
    print(f"{PAGE.name}: {len(counts)} findings, {stale_ones} stale; no quote makes {left} of their {numbers} numbers")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
