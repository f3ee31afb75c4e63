"""Made-up study folders, and what is read from a page: pictures, links, anchors, text."""

import base64
import io
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from analysis.kit.tables import RUNS_COLUMNS

TABLE = """\
# The rank

| source            | task    | r = 1          |
|:------------------|:--------|:---------------|
| ours, tiny        | reviews | 70.0 ± 1.0 (2) |
| paper, GPT-3 175B | mnli    | 91.3           |

How to read it.

## Learning rates

- 0.001 is used.
"""
PROVENANCE: dict[str, Any] = {
    "command": "python -m analysis.study results/desk/x", "date": "2026-01-02T03:04:05+00:00", "commit": "c0ffee",
    "versions": {"python": "3.11", "torch": "2.13"}, "machine": {"system": "Linux", "processor": "", "cpus": 2},
    "trainings": [{"machine": {"threads": 2, "gpu": None}, "versions": {"torch": "2.12"}, "precision": "fp32"}],
    "fingerprint": "f", "outputs": ["runs.csv", "table.md"],
}  # fmt: skip

HOSTILE = '<script>alert("1")</script>'


class Page(HTMLParser):
    """A page, parsed: its elements as (tag, attributes), and its text without style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._style = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._style = tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def all(self, tag: str, attribute: str) -> list[str]:
        """The values of an attribute of the elements `tag` that have it."""
        return [about[attribute] for name, about in self.elements if name == tag and attribute in about]

    @property
    def ids(self) -> list[str]:
        return [about["id"] for _, about in self.elements if "id" in about]

    def pictures(self) -> list[Image.Image]:
        """The pictures of all img elements, which must be data URIs."""
        found = []
        for source in self.all("img", "src"):
            kind, _, data = source.partition(",")
            assert kind == "data:image/avif;base64"
            picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            picture.load()
            found.append(picture)
        return found


def draw(path: Path, width: int = 300, height: int = 200, seed: int = 0) -> None:
    """A picture of smooth noise, which is as hard to compress as a figure."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 10, width // 10, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, compress_level=1)


def run(run_id: str, split: str = "test", **fields: Any) -> dict[str, Any]:
    """A row of runs.csv."""
    about: dict[str, Any] = dict.fromkeys(RUNS_COLUMNS)
    about |= {
        "run_id": run_id, "model": "tiny", "task": "reviews", "method": "lora", "label": "lora", "settings": "r=8, q+v",
        "weight_types": "q+v", "r": 8, "alpha": 16, "lr": 1e-3, "seed": 0, "trainable_params": 100, "split": split,
        "metric": "accuracy", "value": 0.7, "train_seconds": 1800, "tokens_per_second": 5, "peak_memory_bytes": 9,
        "role": "study",
    }  # fmt: skip
    return about | fields


def make_study(
    folder: Path, pictures: Sequence[str] = (), table: str = TABLE, runs: Sequence[dict[str, Any]] | None = None
) -> Path:
    """A study folder as `analysis.study` leaves it."""
    folder.mkdir(parents=True)
    (folder / "table.md").write_text(table, encoding="utf-8")
    rows = [run("aaa"), run("123456789012", seed=1), run("77e3", role="tuning")] if runs is None else runs
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE), encoding="utf-8")
    for seed, name in enumerate(pictures):
        draw(folder / name, seed=seed)
    return folder


def make_results(folder: Path) -> None:
    """results/desk with whole studies, one with names that mean harm, one begun, one damaged, one not listed."""
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
