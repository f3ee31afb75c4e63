"""The runs behind the numbers of a table, and what the page draws of claims and of phi."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import make_study, run

from analysis.claims import rank
from analysis.claims.engine import Case, judge
from analysis.maths import estimates
from analysis.report import entries, forest, phi_maps, scoreboard
from analysis.report.runs import Found, StudyRuns
from analysis.report.scoreboard import ANSWERS

DESK = Path(__file__).parents[3] / "results" / "desk"
HEAD = ["source", "task", "weights", "r = 8", "r = 64"]


@pytest.fixture
def study(tmp_path: Path) -> StudyRuns:
    """Two tasks, two ranks and two seeds, and what chose the rate."""
    runs = [
        run(f"{task}-{r}-{seed}", task=task, r=r, seed=seed, value=0.7 + r / 1000 + seed / 100, settings=f"r={r}, q+v")
        for task in ("reviews", "news")
        for r in (8, 64)
        for seed in (0, 1)
    ]
    return StudyRuns(make_study(tmp_path / "desk" / "x", runs=[*runs, run("tuning", role="tuning", task="news")]))


def ids(study: StudyRuns, found: Found | None) -> list[str]:
    return [study.runs[number]["run_id"] for number in found.runs] if found else []


def test_a_mean_has_the_runs_that_it_is_the_mean_of(study: StudyRuns) -> None:
    half = estimates.mean([0.708, 0.718]).half
    row = ["ours, tiny", "reviews", "q+v", f"71.3 ± {100 * half:.1f} (2)", "–"]
    found = study.of("", HEAD, row, 3)
    assert ids(study, found) == ["reviews-8-0", "reviews-8-1"]
    assert found and found.metric == "accuracy"


@pytest.mark.parametrize("text", ["71.4 ± 6.4 (2)", "71.3 ± 6.3 (2)", "71.3 ± 6.4 (3)"])
def test_another_number_is_not_said_to_be_their_mean(text: str, study: StudyRuns) -> None:
    found = study.of("", HEAD, ["ours, tiny", "reviews", "q+v", text, "–"], 3)
    assert ids(study, found) == ["reviews-8-0", "reviews-8-1"]  # they are named
    assert found and found.metric == ""


def test_headings_rows_and_heads_name_runs(study: StudyRuns) -> None:
    assert len(ids(study, study.of("news (tiny)", ["method", "lr"], ["lora", "0.1"], 1))) == 4
    assert ids(study, study.of("news", ["settings", "rises"], ["r=8, q+v", "3"], 1)) == ["news-8-0", "news-8-1"]
    assert ids(study, study.of("news", ["r", "rises"], ["64", "3"], 1)) == ["news-64-0", "news-64-1"]
    assert study.of("", ["what", "is"], ["all", "3"], 1) is None  # nothing is named: all of them


def test_the_page_has_each_run_once(study: StudyRuns) -> None:
    assert study.mark("news", ["r", "x"], ["64", "3"], 1) == study.mark("news", ["r", "x"], ["64", "4"], 1) == 0
    assert study.mark("news", ["r", "x"], ["8", "3"], 1) == 1
    data = json.loads(json.dumps(study.data(), allow_nan=False))
    (run_ids,) = data["columns"]["run"]
    assert len(run_ids) == 9 and len(data["own"]) == 8
    assert [run_ids[number] for number in data["sets"][1][1:]] == ["news-8-0", "news-8-1"]
    kinds, at = data["columns"]["r"]
    assert [kinds[place] for place in at] == [8, 8, 64, 64] * 2 + [8]


@pytest.mark.skipif(not DESK.is_dir(), reason="no results are stored")
def test_stored_means_are_of_the_runs_that_table_csv_says() -> None:
    study = StudyRuns(DESK / "rank_ablation")
    table = pd.read_csv(DESK / "rank_ablation" / "table.csv")
    checked = 0
    for row in table[table["source"] == "ours"].to_dict("records"):
        for r in (1, 8, 64):
            mean, half, n = (row[f"r{r}{part}"] for part in ("", "_interval", "_n"))
            if math.isnan(mean):
                continue
            text = f"{100 * mean:.1f} ± {100 * half:.1f} ({n:.0f})"
            cells = [f"ours, {row['model']}", row["task"], row["weight_types"], text]
            found = study.of("", ["source", "task", "weights", f"r = {r}"], cells, 3)
            assert found and found.metric == row["metric"]
            assert {(study.runs[k]["task"], study.runs[k]["weight_types"], study.runs[k]["r"]) for k in found.runs} == {
                (row["task"], row["weight_types"], r)
            }
            checked += 1
    assert checked >= 6


def test_grids_of_phi_are_read_back(tmp_path: Path) -> None:
    grid = np.random.default_rng(0).random((3, 4))
    digits = phi_maps.coded(grid)
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    read = [(64 * phi_maps.DIGITS.index(a) + phi_maps.DIGITS.index(b)) / 4095 for a, b in pairs]
    np.testing.assert_allclose(read, grid.ravel(), atol=1 / 4095)
    for name in ("phi_seeds_A_x.csv", "phi_seeds_B_x.csv", "phi_r8_r64_x.csv"):
        shutil.copy(DESK / "subspace" / f"{name[:-6]}_minilm_reuters_r8.csv", tmp_path / name)
    ranks, seeds = phi_maps.read(tmp_path)
    assert ranks["title"] == "reuters_r8 (minilm): r = 8 and r = 64"
    assert seeds["title"] == "reuters_r8 (minilm): two seeds of r = 64"
    assert [grid[:3] for grid in seeds["maps"][:2]] == [["0", "q", 384], ["0", "v", 384]]
    assert len(seeds["maps"][0][3]) == 2 * len(seeds["i"]) * len(seeds["j"])


def test_a_claim_is_drawn_and_says_that_an_interval_goes_on() -> None:
    claim = next(claim for claim in rank.CLAIMS if claim.key == "small_rank")
    cases = [
        Case("a", "tiny <x>", "x", estimates.mean([0.001, -0.001, 0.0]), "seeds"),
        Case("a", "tiny y", "y", estimates.mean([0.5, -0.5, 0.0]), "seeds"),
    ]
    alone, both = (
        str(forest.draw(judge([claim.__class__(**{**claim.__dict__, "judge": lambda _, some=some: some})], {})[0]))
        for some in (cases[:1], cases)
    )
    assert alone.count("<circle") == 1 and both.count("<circle") == 3
    assert "tiny &lt;x&gt;" in alone and "+1.0 points" in alone
    assert "l-5 4 5 4" not in alone
    assert "the claim holds below +1.0 points" in alone


def test_questions_have_their_claims_and_studies(tmp_path: Path) -> None:
    board = scoreboard.make(tmp_path)
    assert [answer for answer, _ in board.answers] == list(ANSWERS)
    assert {answer.study for answer in ANSWERS} <= {entry.folder for entry in entries.load()}
    assert all(item.topic for item in board.items)
