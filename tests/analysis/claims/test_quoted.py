"""Sentences of FINDINGS that quote the scoreboard say what it says."""

from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
QUOTED = {
    # claim: its verdict when the sentence was written, the texts with its estimate and interval, and the files
    "small_rank": ("holds", "{value:.1f} points below", "from {low:.1f} to {high:+.1f}", ["FINDINGS.md"]),
    "rank_one": ("not decided", "{value:.1f}", "{low:.1f} to {high:.1f}", ["FINDINGS.md"]),
    "as_good_as_full": ("not decided", "{value:+.1f}", "from {low:.1f} to {high:+.1f}", ["FINDINGS.md"]),
    "prefixes_fall": (
        "holds",
        "{below:.1f} points for the two together",
        "from {under:.1f} to {over:.1f}",
        ["FINDINGS.md"],
    ),
    "forgets_less": (
        "not decided",
        "by {share:.2f}",
        "{share_low:.2f} to {share_high:.2f}",
        ["FINDINGS.md"],
    ),
    "top_above_chance": ("not decided", "one pair of runs a task", "", ["FINDINGS.md"]),
}


@pytest.mark.parametrize("key", QUOTED)
def test_what_is_quoted_is_in_the_scoreboard(key: str) -> None:
    verdict, *texts, files = QUOTED[key]
    table = pd.read_csv(ROOT / "results/desk/claims.csv")
    row = table[table["claim"] == key].iloc[0]
    assert row["verdict"] == verdict, f"{key} has another verdict: its sentences in {files} must say so"
    value, low, high = (100 * row[name] for name in ("estimate", "low", "high"))
    numbers = {"value": abs(value) if key == "small_rank" else value + 0.0, "low": low, "high": high}
    numbers |= {"below": -value, "under": -high, "over": -low}
    numbers |= {"share": row["estimate"], "share_low": row["low"], "share_high": row["high"]}
    for name in files:
        page = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for text in texts:
            assert text.format(**numbers).replace("-0.0", "+0.0") in page, (name, text.format(**numbers))
