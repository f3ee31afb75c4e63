"""FINDINGS.md and the README against the tables that they were written from: what is stale is said, and nothing is."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis import findings
from lora.config import InputError

PAGE = """\
# Found

- **A is larger.** By 1.5
  points (3 seeds).
- **No number here.** None.

## More

- **B.** 7 of 9.
"""
TABLE = "label,difference,n\na,0.015,3\nb,0.02,4\n"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path


def entries(tables: Path, text: str = "By {:.1f} points ({:.0f} seeds)") -> dict[str, Any]:
    quote = {"text": text, "of": "t.csv", "where": "label == 'a'", "values": ["100 * difference", "n"]}
    now = {"t.csv": findings.digest(tables / "t.csv")}
    return {"A is larger.": {"tables": now, "quotes": [quote]}, "B.": {"tables": now}}


def test_no_finding_is_stale() -> None:
    known = yaml.safe_load(findings.ENTRIES.read_text(encoding="utf-8"))
    assert findings.stale(findings.PAGE.read_text(), known, findings.TABLES) == []
    assert len(known) >= 30 and sum(len(entry.get("quotes", [])) for entry in known.values()) >= 70
    assert all(entry["tables"] for entry in known.values())


def test_a_page_that_says_what_its_tables_say_is_not_stale(tables: Path) -> None:
    assert list(findings.findings(PAGE)) == ["A is larger.", "B."]
    assert findings.stale(PAGE, entries(tables), tables) == []


def test_numbers_that_no_quote_makes_are_counted(tables: Path) -> None:
    assert findings.by_eye(PAGE, entries(tables), tables) == {"A is larger.": (0, 2), "B.": (2, 2)}


def test_another_table_makes_its_findings_stale(tables: Path) -> None:
    known = entries(tables)
    (tables / "t.csv").write_text(TABLE.replace("0.015", "0.025"))
    other = "t.csv is not the table that it was written from"
    assert findings.stale(PAGE, known, tables) == [
        ("A is larger.", other), ("A is larger.", "t.csv says: By 2.5 points (3 seeds)"), ("B.", other),
    ]  # fmt: skip
    noted = findings.written(known, tables)
    assert findings.stale(PAGE, noted, tables) == [("A is larger.", "t.csv says: By 2.5 points (3 seeds)")]
    assert findings.stale(PAGE.replace("1.5", "2.5"), noted, tables) == []


def test_another_verdict_makes_a_finding_stale(tables: Path) -> None:
    known = entries(tables)
    known["B."]["verdicts"] = {"better": "holds"}
    (tables / "claims.csv").write_text("claim,verdict,case\nbetter,holds,a\nbetter,holds,b\n")
    assert findings.stale(PAGE, known, tables) == []
    (tables / "claims.csv").write_text("claim,verdict,case\nbetter,not decided,a\n")
    assert findings.stale(PAGE, known, tables) == [("B.", "claim better: not decided, no longer holds")]
    assert findings.stale(PAGE, findings.written(known, tables), tables) == []
    (tables / "claims.csv").write_text("claim,verdict,case\nworse,holds,a\n")
    with pytest.raises(InputError, match="has no claim better"):
        findings.stale(PAGE, known, tables)


def test_what_cannot_be_checked_is_one_line(tables: Path) -> None:
    with pytest.raises(InputError, match="do not have the same findings: B"):
        findings.stale(PAGE.partition("## More")[0], entries(tables), tables)
    for text in ("{:.1f} {:.1f} {:.1f}", "{:d}"):
        with pytest.raises(InputError, match="cannot be made"):
            findings.stale(PAGE, entries(tables, text), tables)
    with pytest.raises(InputError, match="t.csv cannot be read .*make tables"):
        findings.stale(PAGE, entries(tables), tables / "none")


def test_the_command(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, known = tmp_path / "FINDINGS.md", tmp_path / "findings.yaml"
    page.write_text(PAGE)
    known.write_text(yaml.safe_dump(entries(tables)))
    for name, path in (("ENTRIES", known), ("TABLES", tables)):
        monkeypatch.setattr(findings, name, path)
    monkeypatch.setattr(findings, "PAGE", page)
    assert findings.main([]) == 0
    (tables / "t.csv").write_text(TABLE.replace(",4", ",5"))
    assert findings.main([]) == 1
    assert "B.: t.csv is not the table" in capsys.readouterr().out
    assert findings.main(["--written"]) == 0
    shutil.move(tables / "t.csv", tables / "gone.csv")
    assert findings.main([]) == 2
    assert capsys.readouterr().err.startswith("error: ")
