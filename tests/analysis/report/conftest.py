from pathlib import Path

import pytest
from pages import HOSTILE, draw, make_study, run

from analysis.report import pictures

encode, ENCODED = pictures.encode, dict[tuple[bytes, int, int], pictures.Picture]()


@pytest.fixture(autouse=True)
def encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture is in many reports of these tests: it is encoded once, which is what takes the time."""

    def once(path: Path, width: int, quality: int) -> pictures.Picture:
        key = (path.read_bytes(), width, quality)
        if key not in ENCODED:
            ENCODED[key] = encode(path, width, quality)
        return ENCODED[key]

    monkeypatch.setattr(pictures, "encode", once)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """results/desk with whole studies, one with names that mean harm, one begun, one damaged, one not listed."""
    folder = tmp_path / "results" / "desk"
    make_study(folder / "rank_ablation", ["rank_ablation.png"])
    make_study(folder / "subspace", ["fig3_a.png", "fig3_b.png", "fig3_delta_w_a.png", "fig6_a.png", "fig6_B_a.png"])
    draw(folder / "subspace" / "fig6_a.png", width=300, height=2400)
    (folder / "subspace" / "phi.csv").write_text("phi\n1\n")
    (folder / "subspace" / "samples.md").write_text("# Samples\n")
    (folder / "bench").mkdir()
    (folder / "bench" / "training.md").write_text("| contender | tokens/s |\n|--:|--:|\n| lora-lab | 9 |\n")
    hostile = [run("bbb", task=HOSTILE, label="<b>x</b>"), run(HOSTILE, task="a|b`c*d_e")]
    table = f"# T\n\n| {HOSTILE} | ![x](http://example.org/x.png) |\n|:--|:--|\n| <img src=x onerror=alert(1)> | 1 |\n"
    make_study(folder / "alpha", ['a #1 & "b"?.png'], table=table, runs=hostile)
    (folder / "table16").mkdir()
    (folder / "table16" / "sweep.jsonl").write_text("{}\n")
    damaged = make_study(folder / "table3", ["table3.png"])
    (damaged / "table3.png").write_bytes((damaged / "table3.png").read_bytes()[:200])
    (damaged / "provenance.json").write_text("{")
    make_study(folder / "mine", ["mine.png"])
    (folder / "empty").mkdir()
    return folder
