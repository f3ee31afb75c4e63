"""The report in a real browser, where there is one."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from pages import TABLE as MADE_UP
from pages import Page, make_results, make_study, run

from analysis.report import pictures, scoreboard
from analysis.report.__main__ import main

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is in requirements-docs.lock")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

DESK = Path(__file__).parents[3] / "results" / "desk"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 768, 1280, 1920)
TABLE = """\
# The rank

## reviews (tiny)

| source            | weights | r = 8           | r = 64          |
|:------------------|:--------|:----------------|:----------------|
| ours, tiny        | q+v     | 70.0 ± 1.0 (2)  | 60.0 ± 50.8 (2) |
| ours, tiny        | k       | –               | 9.5 (1)         |
| paper, GPT-3 175B | q+v     | 91.3            | 90.7            |
"""
# What is wider than the page, and the tables of which no number is on the first screen, with everything unfolded.
PROBE = """() => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const place = each => each.getBoundingClientRect();
  const seen = table => [...table.querySelectorAll(".runs")].some(number => {  // at least its first 60 pixels
    const own = place(number), end = Math.min(place(table.parentNode).right, innerWidth);
    return own.left >= place(table.rows[1].cells[0]).right && Math.min(own.right, own.left + 60) <= end;
  });
  const tables = [...document.querySelectorAll(".body table")].filter(table => table.querySelector(".runs"));
  const root = document.documentElement, blind = tables.filter(table => !seen(table));
  return [root.scrollWidth - root.clientWidth, blind.map(table => table.innerText.slice(0, 80))];
}"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=BROWSER)


@pytest.fixture(scope="module")
def opened(browser: "playwright.Browser", tmp_path_factory: pytest.TempPathFactory) -> "playwright.Page":
    """A report, loaded once."""
    results = tmp_path_factory.mktemp("browser") / "results" / "desk"
    make_results(results)
    shutil.rmtree(results / "rank_ablation")
    seeds = [("aaa", 8, 0.7007871), ("bbb", 8, 0.6992129), ("ccc", 64, 0.64), ("ddd", 64, 0.56)]
    runs = [run(name, r=r, value=value, seed=seed % 2) for seed, (name, r, value) in enumerate(seeds)]
    runs += [run("eee", r=64, weight_types="k", settings="r=64, k", value=0.095)]
    make_study(results / "rank_ablation", ["rank_ablation.png"], table=TABLE, runs=runs)
    ranks = [(r, seed) for r in (8, 64) for seed in range(3)]
    make_study(
        results / "scaling",
        runs=[
            run(f"{r}-{seed}", split, r=r, seed=seed, value=0.7 + 0.001 * seed * (r > 8))
            for r, seed in ranks
            for split in ("validation", "test")
        ],
    )
    about = {"run_id": "a", "other_run_id": "b", "model": "tiny", "task": "reviews", "side": "A", "dim": 10}
    grids = [
        about | {"layer": layer, "weight_type": kind, "i": i, "j1": i / 10, "j2": 0.25 * (1 + layer)}
        for layer in (0, 1)
        for kind in "qv"
        for i in (1, 2)
    ]
    pd.DataFrame(grids).to_csv(results / "subspace" / "phi_seeds_A.csv", index=False)
    assert main([str(results)]) == 0
    return load(browser, results)


def load(browser: "playwright.Browser", results: Path) -> "playwright.Page":
    """The page of results, which has asked for nothing else, and raised no error."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((results / "report.html").as_uri())
    assert page.evaluate("Promise.all([...document.images].map(each => each.decode())).then(all => all.length)") > 5
    assert [url for url in asked if not url.startswith("data:")] == [(results / "report.html").as_uri()]
    assert errors == []
    return page


def test_nothing_overflows_and_each_table_shows_a_number(opened: "playwright.Page") -> None:
    for width in WIDTHS:
        opened.set_viewport_size({"width": width, "height": 800})
        assert opened.evaluate(PROBE) == [0, []], width
        assert opened.locator(".side").is_visible() == (width > 960)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(scheme: str, opened: "playwright.Page") -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 1280, "height": 800})
    opened.evaluate(PROBE)
    found = axe.Axe().run(opened).response["violations"]
    opened.locator("#rank_ablation .runs").first.press("Enter")
    found += axe.Axe().run(opened, context="#panel").response["violations"]
    opened.keyboard.press("Escape")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_the_scoreboard_is_filtered(opened: "playwright.Page") -> None:
    whole = opened.locator(".claim").count()

    def shown() -> int:
        count = opened.locator(".claim:not([hidden])").count()
        assert opened.locator("#filter output").inner_text() == f"{count} of {whole} claims"
        return count

    assert shown() == whole
    opened.select_option("[name=model]", "tiny")
    of_model = shown()
    assert 0 < of_model < whole
    opened.select_option("[name=topic]", "rank")
    assert 0 < shown() <= of_model
    opened.fill("[name=text]", "SUFFICES q+v none")
    assert shown() == 1
    opened.click("text=show all")
    opened.wait_for_function(f"document.querySelectorAll('.claim:not([hidden])').length === {whole}")
    opened.click(".counts .none button")
    assert 0 < shown() < whole
    assert {*opened.locator(".claim:not([hidden]) .verdict").all_inner_texts()} == {"no runs"}
    # A link to a claim that is filtered out shows it again.
    opened.evaluate("location.hash = '#claim-small_rank'")
    opened.wait_for_selector("#claim-small_rank:not([hidden])[open]")


def test_a_table_is_sorted_and_the_papers_rows_stay_below(opened: "playwright.Page") -> None:
    table = opened.locator("#rank_ablation .body table").first
    column = [text.strip() for text in table.locator("tr td:nth-child(4)").all_inner_texts()]
    assert column == ["60.0 ± 50.8 (2)", "9.5 (1)", "90.7"]
    head = table.locator("th:nth-child(4) button")
    for order, numbers in (("ascending", ["9.5", "60.0", "90.7"]), ("descending", ["60.0", "9.5", "90.7"])):
        head.press("Enter")
        assert table.locator("th:nth-child(4)").get_attribute("aria-sort") == order
        assert [text.split()[0] for text in table.locator("tr td:nth-child(4)").all_inner_texts()] == numbers


def test_a_number_leads_to_its_runs_by_keyboard(opened: "playwright.Page") -> None:
    table = opened.locator("#rank_ablation .body table").first
    numbers = table.locator(".runs")
    assert numbers.count() == 3  # none of the paper's
    assert table.locator(".runs[tabindex='0']").count() == 1
    opened.locator("#rank_ablation .runs", has_text="70.0").focus()
    opened.keyboard.press("Enter")
    panel = opened.locator("#panel")
    text = panel.inner_text()
    assert "The mean of these 2 runs in accuracy." in text
    assert panel.locator("tbody td:first-child").all_inner_texts() == ["aaa", "bbb"]
    assert "make ablate-rank PRESET=desk ARGS='only.method.r=8 only.method.weight_types=q+v'" in text
    opened.keyboard.press("Escape")
    assert not panel.is_visible()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("Enter")
    assert "60.0 ± 50.8 (2)" in panel.inner_text()
    assert "So wide an interval" in panel.inner_text()
    assert panel.locator("tbody td:first-child").all_inner_texts() == ["ccc", "ddd"]
    opened.keyboard.press("Escape")


def test_a_map_says_phi_and_chance_at_the_pointer_and_by_keyboard(opened: "playwright.Page") -> None:
    figure = opened.locator("#subspace .phi")
    said = figure.locator("output")
    canvas = figure.locator("canvas").nth(1)
    box = canvas.bounding_box()
    assert box
    canvas.hover(position={"x": 0.25 * box["width"], "y": 0.75 * box["height"]})
    assert said.inner_text() == "W_v: i = 2, j = 1, phi 0.200, chance 0.200"
    canvas.press("ArrowRight")
    canvas.press("ArrowRight")
    assert said.inner_text() == "W_v: i = 2, j = 2, phi 0.250, chance 0.200"
    figure.locator("input").press("ArrowRight")
    figure.locator("canvas").nth(0).focus()
    assert said.inner_text() == "W_q: i = 1, j = 1, phi 0.100, chance 0.100"
    figure.locator("canvas").nth(0).press("ArrowRight")
    assert said.inner_text() == "W_q: i = 1, j = 2, phi 0.500, chance 0.200"


def test_the_report_of_desk_opens_and_its_links_lead_somewhere(
    browser: "playwright.Browser", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in filter(Path.is_dir, DESK.iterdir()):
        (tmp_path / folder.name).symlink_to(folder)
    encode = pictures.encode
    monkeypatch.setattr(pictures, "encode", lambda path, width, quality: encode(path, 16, 1))  # a fifth of the time
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    html = Page(text)
    assert MADE_UP not in html.text
    for said, explained in scoreboard.NOTES.items():  # what a case says of its runs is explained below it
        claims = re.findall(r'<details class="claim".*?</div></details>', text, re.S)
        assert [said in claim for claim in claims] == [explained[30:60] in claim for claim in claims]
        assert any(said in claim for claim in claims)
    for target in html.all("a", "href"):
        found = target[1:] in html.ids if target.startswith("#") else (tmp_path / unquote(target)).is_file()
        assert found or target.startswith("https://arxiv.org/"), target
    page = load(browser, tmp_path)
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(PROBE) == [0, []], width
    page.close()
