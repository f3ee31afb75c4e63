"""README and docs: what is made of them is current, and what they link to is there."""

import re
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from analysis.report import entries, overview, texts
from lora.config import InputError

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)
PAGES = [*texts.pages(), *(texts.ROOT / name for name in ("FINDINGS.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


def page_id(path: Path) -> str:
    return path.relative_to(texts.ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """Those that GitHub and the site give the headings of a page, and those that it sets itself."""
    text = path.read_text(encoding="utf-8")
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text))
    return {*headings, *re.findall(r'<a id="?([\w-]+)"?>', text)}


@pytest.mark.parametrize("path", texts.pages(), ids=page_id)
def test_made_parts_are_current(path: Path) -> None:
    assert texts.made(path) == path.read_text(encoding="utf-8"), "run `python -m analysis.report.texts`"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if not link.startswith(("http", "../../actions")):
            target = (path.parent / place).resolve() if place else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_both_readmes_are_short_and_alike() -> None:
    english, chinese = ((texts.ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert max(len(english.splitlines()), len(chinese.splitlines())) <= 120
    assert english.count("\n```") == chinese.count("\n```") and english.count("\n## ") == chinese.count("\n## ")
    for pattern in (
        r"<!--claim (\w+)",
        r"\]\((docs/[\w.#/-]+)\)",
        r"^(?:make|lora-lab) [\x21-\x7e]+[^#\n]*",
        r"^\| .*?(`make [^`]*`)",
    ):
        found = [[one.strip() for one in re.findall(pattern, text, re.M)] for text in (english, chinese)]
        assert found[0] == found[1] and found[0], pattern


def test_the_chinese_table_has_every_study_and_no_english_word() -> None:
    assert set(texts.CHINESE["titles"]) == {entry.folder for entry in entries.load()}
    rows = texts.studies(texts.ROOT / "README.zh-CN.md", chinese=True).splitlines()[2:]
    assert not [row for row in rows if re.search("Table|Figure|Section|Equation|beyond", row.split("|")[1])]


def test_a_sentence_must_be_written_anew_when_its_verdict_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("so it is: <!--claim small_rank: no runs--><!--/-->")
    with pytest.raises(InputError, match=r"page.md: small_rank is now .*, not no runs: write its sentence anew"):
        texts.made(page)
    page.write_text("so: <!--claim smallrank: holds--><!--/-->")
    with pytest.raises(InputError, match="no claim is called smallrank"):
        texts.made(page)


def test_a_claim_does_not_begin_a_line(tmp_path: Path) -> None:
    """Of such a line Markdown makes HTML: its links would be shown as they are written."""
    page = tmp_path / "page.md"
    page.write_text("- so it is:\n  <!--claim small_rank: holds--><!--/-->")
    with pytest.raises(InputError, match="a line begins with"):
        texts.made(page)


def test_the_picture_of_readme_is_of_the_stored_figures() -> None:
    with Image.open(overview.OVERVIEW) as stored:
        apart = ImageChops.difference(stored.convert("RGB"), overview.picture())
    assert max(high for _, high in apart.getextrema()) <= 2, "python -m analysis.report.overview makes it anew"
    assert all("docs/overview.png" in (texts.ROOT / name).read_text() for name in ("README.md", "README.zh-CN.md"))
