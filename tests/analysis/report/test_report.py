import json
import pkgutil
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pages import HOSTILE, Page, make_study, run

import analysis.studies
from analysis.report import entries, pictures, scoreboard
from analysis.report.__main__ import LIMIT, main

OUTSIDE = ("https://arxiv.org/", "http://example.org/")  # the paper's page, and what a hostile name asks for
DESK = Path(__file__).parents[3] / "results" / "desk"


def make(results: Path, *arguments: str) -> Page:
    """Writes the report and reads its page."""
    assert main([str(results), *arguments]) == 0
    return Page((results / "report.html").read_text(encoding="utf-8"))


def assert_links(targets: list[str], anchors: list[str], folder: Path) -> None:
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif not target.startswith(OUTSIDE):
            assert (folder / unquote(target)).is_file(), target


def test_the_page_holds_every_figure(results: Path) -> None:
    page = make(results)
    found = page.pictures()
    assert len(found) == 8  # of 9 one is damaged
    assert all(min(picture.size) > 1 and picture.getbbox() for picture in found)
    sizes = zip(page.all("img", "width"), page.all("img", "height"), strict=True)
    assert [(int(width), int(height)) for width, height in sizes] == [picture.size for picture in found]
    assert all(page.all("img", "alt"))
    assert "Figure 3, a: the smaller and the larger rank, middle layer; right: the top directions alone." in page.text


def test_the_page_loads_nothing_and_every_link_leads_somewhere(results: Path) -> None:
    page = make(results)
    assert_links(page.all("a", "href"), page.ids, results)
    assert len(page.ids) == len(set(page.ids))
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert not any(
        name.startswith("on") or name in ("srcset", "action") for _, about in page.elements for name in about
    )
    assert page.all("script", "src") == []
    html = (results / "report.html").read_text(encoding="utf-8")
    assert "url(" not in html
    assert "@import" not in html


def test_report_md_has_the_same_content(results: Path) -> None:
    page = make(results)
    text = (results / "report.md").read_text(encoding="utf-8")
    tokens = list(flat(MarkdownIt("commonmark").enable("table").parse(text)))
    targets = [str(token.attrs[name]) for token in tokens for name in ("href", "src") if name in token.attrs]
    anchors = [*re.findall(r'<a id="([^"]*)">', text)]
    assert_links(targets, anchors, results)
    linked = {unquote(target) for target in targets}
    assert {f"subspace/{name}" for name in ("fig3_a.png", "fig3_delta_w_a.png", "phi.csv", "samples.md")} <= linked
    assert {"mine/table.md", "mine/mine.png"} <= linked
    kinds = [(token.type, token.level) for token in tokens]
    claims = [name for name in page.ids if name.startswith("claim-")]
    sections = page.text.count("How it was made, and its files")
    assert kinds.index(("bullet_list_open", 0)) < kinds.index(("table_open", 0))
    contents = tokens[: kinds.index(("bullet_list_close", 0))]
    assert sum(token.type == "list_item_open" for token in contents) == len(anchors)
    board = tokens[kinds.index(("table_open", 0)) : kinds.index(("table_close", 0))]
    assert sum(token.type == "tr_open" for token in board) == 1 + len(claims)
    assert kinds.count(("table_open", 0)) == 1 + sections  # each short table is shown
    assert sum(token.type == "heading_open" and token.tag == "h2" for token in tokens) == 1 + len(anchors)
    assert sum(token.type == "image" for token in tokens) == 5  # of every study its large ones


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])


def test_names_cannot_become_markup(results: Path) -> None:
    page = make(results)
    assert HOSTILE in page.text
    assert "<b>x</b>" in page.text
    assert "a|b`c*d_e" in page.text
    assert not [source for source in page.all("img", "src") if not source.startswith("data:")]
    tokens = flat(MarkdownIt("commonmark").enable("table").parse((results / "report.md").read_text(encoding="utf-8")))
    markup = [token.content for token in tokens if token.type in ("html_inline", "html_block")]
    assert not [text for text in markup if "<b>" in text]


def test_sections_are_in_the_papers_order_and_say_how_they_were_made(results: Path) -> None:
    page = make(results)
    listed = [entry.folder for entry in entries.load()]
    sections = [about["id"] for tag, about in page.elements if tag == "section"]
    assert sections == ["answers", "claims", *listed, "mine"]
    text = " ".join(page.text.split())
    made = text[text.index("How it was made", text.index("The rank r Table 6")) :].partition("Which directions")[0]
    assert "make ablate-rank PRESET=desk" in made
    facts = (
        "2, and 1 more to choose learning rates",
        "seeds0, 1",
        "1.5 hours in all",
        "c0ffee",
        "2026-01-02T03",
        "torch 2.12",
    )
    assert [fact for fact in facts if fact not in made] == []
    assert "aaa 123456789012 77e3" in made  # ids are text, also those that look like numbers


def test_what_is_missing_begun_or_damaged_has_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = make(results)
    text = " ".join(page.text.split())
    assert "not run: make latency PRESET=desk" in text
    assert "not finished: make low-data PRESET=desk" in text
    assert "table3.png cannot be read; make table3 PRESET=desk writes it again" in text
    assert "provenance.json is damaged (JSONDecodeError" in text
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 2
    assert warned[0].startswith("warning: table3: provenance.json is damaged (")
    assert warned[1] == "warning: table3: table3.png cannot be read; `make table3 PRESET=desk` writes it again"
    markdown = (results / "report.md").read_text(encoding="utf-8")
    assert "not run: `make latency PRESET=desk`" in markdown
    assert "empty" not in page.ids


def test_a_folder_of_data_without_tables_is_not_finished(tmp_path: Path) -> None:
    study = make_study(tmp_path / "quick" / "scaling")
    (study / "table.md").unlink()
    assert "not finished: make scaling PRESET=quick" in make(tmp_path / "quick").text


def test_the_size_is_kept_by_smaller_pictures(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(results / "more", ["more.png"])
    shutil.copy(results / "subspace" / "fig6_a.png", results / "more")
    make(results)
    size = (results / "report.html").stat().st_size
    best = capsys.readouterr().out
    assert size <= LIMIT
    assert f"report.html ({size:,} of {LIMIT:,} bytes; 10 figures, 1500 (small: 600) pixels wide" in best
    limit = size - 1_500
    page = make(results, "--limit", str(limit))
    smaller = (results / "report.html").stat().st_size
    assert smaller <= limit
    assert len(page.pictures()) == 10
    assert f"({smaller:,} of {limit:,} bytes" in capsys.readouterr().out
    assert main([str(results), "--limit", "50000"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: the report's figures take [\d,]+ bytes .* give a larger --limit\n", error)


def test_extra_figures_become_links_when_there_is_no_room(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "LEVELS", pictures.LEVELS[-1:])
    page = make(results)
    assert "; 2 more as links), report.md" in capsys.readouterr().out
    assert len(page.pictures()) == 6
    assert "2 more figures" in page.text
    links = [name for name in page.all("a", "href") if name == "subspace/fig6_B_a.png"]
    assert len(links) == 2  # in the list, and among the files


def test_the_same_results_make_the_same_report(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of conftest's: each time every picture is encoded
    make(results)
    first = [(results / name).read_bytes() for name in ("report.html", "report.md")]
    make(results)
    assert first == [(results / name).read_bytes() for name in ("report.html", "report.md")]


def test_the_scoreboard_is_first_and_its_claims_link_their_studies(results: Path) -> None:
    ranks = [(r, seed) for r in (8, 64) for seed in range(3)]
    runs = [
        run(f"{r}-{seed}", split, r=r, seed=seed, value=0.7 + 0.001 * seed * (r > 8))
        for r, seed in ranks
        for split in ("validation", "test")
    ]
    make_study(results / "scaling", runs=runs)
    page = make(results)
    text = " ".join(page.text.split())
    claims = [name for name in page.ids if name.startswith("claim-")]
    assert len(claims) >= 20
    assert page.ids.index(claims[-1]) < page.ids.index("latency")
    assert re.search(r"needs make \S+ PRESET=desk", text)
    assert "99.22%" in text  # computed, so that it is judged whatever the runs are
    judged = {target for target in page.all("a", "href") if target.startswith("#claim-")}
    assert judged
    assert "+0.1 [-0.1, +0.3] points; 1 task, 3 seeds, 6 runs" in text
    assert re.search(r"Quality against trained parameters Figure 2 make scaling .*Claims judged on it: 1 holds", text)


def test_without_runs_nothing_is_answered(tmp_path: Path) -> None:
    make_study(tmp_path / "quick" / "rank_ablation")
    text = " ".join(make(tmp_path / "quick").text.split())
    answers = text[text.index("Which rank?") : text.index("How a claim is judged")]
    assert answers.count("Claimed: ") == answers.count("Nothing here bears on it yet") == len(scoreboard.ANSWERS)
    assert "make ablate-rank PRESET=quick would." in answers
    assert "needs `make ablate-rank PRESET=quick`" in (tmp_path / "quick" / "report.md").read_text(encoding="utf-8")


def test_claims_that_cannot_be_judged_are_one_line_and_the_rest_is_there(results: Path) -> None:
    table = pd.read_csv(results / "rank_ablation" / "runs.csv")
    table.drop(columns="metric").to_csv(results / "rank_ablation" / "runs.csv", index=False)
    page = make(results)
    assert "The claims cannot be judged: " in page.text
    assert "no column metric" in page.text
    assert len(page.pictures()) == 8


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "desk")]) == 2
    assert re.fullmatch(r"error: .*desk is no folder; .*`make ablate-rank`\n", capsys.readouterr().err)


def test_every_study_has_an_entry_and_every_stored_figure_a_caption() -> None:
    listed = {entry.folder: entry for entry in entries.load()}
    studies = {module.name for module in pkgutil.iter_modules(analysis.studies.__path__)}
    assert studies | {"bench"} <= set(listed)
    for picture in DESK.glob("*/*.png"):
        entry = listed[picture.parent.name]
        assert entry.caption(picture.name) in entry.figures, picture
    assert all(entry.title and entry.paper and entry.see and entry.differs for entry in listed.values())


def test_a_measurement_says_its_settings(results: Path) -> None:
    study = make_study(results / "latency", ["fig5_tiny.png"])
    (study / "runs.csv").unlink()
    (study / "machine.json").write_text(json.dumps({"processor": "Quick 9000", "left_out": [["a", 1]], "threads": 2}))
    text = " ".join(make(results).text.split())
    assert "Quick 9000" in text
    assert "left out" not in text
    assert "Figure 5, tiny: slow-down by adapters" in text
