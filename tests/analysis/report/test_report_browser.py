"""The report in a real browser, where there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.report.__main__ import main

DESK = Path(__file__).parents[3] / "results" / "desk"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000",
    "--window-size=1400,900",
)  # fmt: skip
PROBE = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(each => each.open = true);
  const images = [...document.images], root = document.documentElement;
  parent.document.documentElement.dataset.found = JSON.stringify({
    images: images.length, missing: images.filter(each => !each.complete || !each.naturalWidth).length,
    scrolls: root.scrollWidth - root.clientWidth, width: innerWidth,
    side: getComputedStyle(document.querySelector(".side")).display,
    requests: performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:")).length})})
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")


def opened(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What a browser finds in the page, in a frame of that width, with everything unfolded."""
    content = html.escape(page.read_text(encoding="utf-8") + PROBE)
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe style="width:{width}px;height:800px;border:0" srcdoc="{content}"></iframe>'
    )
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=True).stdout
    found = re.search(r'<html data-found="([^"]*)"', dom)
    assert found, dom[:500]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize(("width", "side"), [(1280, "block"), (390, "none")])
def test_no_image_is_missing_and_nothing_is_cut(width: int, side: str, results: Path, tmp_path: Path) -> None:
    assert main([str(results)]) == 0
    found = opened(results / "report.html", width, tmp_path)
    assert found == {"images": 8, "missing": 0, "scrolls": 0, "width": width, "side": side, "requests": 0}


@pytest.mark.skipif(not (DESK / "report.html").is_file(), reason="no report is stored")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_stored_report_opens(width: int, tmp_path: Path) -> None:
    found = opened(DESK / "report.html", width, tmp_path)
    assert found["images"] > 20
    assert found["missing"] == found["scrolls"] == found["requests"] == 0
