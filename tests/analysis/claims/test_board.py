"""The rule, the tables that claims are read from, and the scoreboard as files and as a command."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MODEL, TASK, run, two, write
from makers import MAKERS

from analysis.claims import __main__ as command
from analysis.claims.board import CLAIMS
from analysis.claims.engine import PLAIN, POINTS, RULE, TIMES, Case, Claim, Verdict, combine, judge
from analysis.claims.measures import difference, per_run, slope
from analysis.claims.report import evidence
from analysis.claims.sources import read

ROOT = Path(__file__).parents[3]
HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED
CLAIM = {claim.key: claim for claim in CLAIMS}


def claim(low: float = -math.inf, high: float = math.inf, **fields: Any) -> Claim:
    return Claim("key", "statement", "source", "statistic", (), lambda frames: [], low, high, **fields)


def case(low: float, high: float, n: int = 3, exact: bool = False) -> Case:
    return Case("study", "where", (low + high) / 2, low, high, n, "seeds", exact=exact)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([HOLDS], HOLDS), ([FAILS], FAILS), ([OPEN], OPEN), ([], OPEN),
        ([HOLDS, OPEN], HOLDS), ([HOLDS, OPEN, OPEN], OPEN), ([FAILS, FAILS, OPEN, OPEN], FAILS),
        ([HOLDS, HOLDS, HOLDS, FAILS], OPEN), ([FAILS, OPEN, OPEN], OPEN),
    ],
)  # fmt: skip
def test_half_of_the_cases_decide_if_none_contradicts(verdicts: Sequence[Verdict], expected: Verdict) -> None:
    assert combine(verdicts) == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from([HOLDS, FAILS, OPEN])))
def test_the_rule_treats_both_sides_alike(verdicts: list[Verdict]) -> None:
    turned = {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}
    assert combine([turned[verdict] for verdict in verdicts]) == turned[combine(verdicts)]
    assert combine([*verdicts, OPEN]) in (combine(verdicts), OPEN)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-1, 1, HOLDS), (-1.1, 1, OPEN), (0, 1.1, OPEN), (1.1, 2, FAILS), (-3, -1.1, FAILS), (-3, 3, OPEN)],
)
def test_a_margin_must_hold_the_whole_interval(low: float, high: float, verdict: Verdict) -> None:
    assert claim(-1, 1).of(case(low, high)) == verdict


def test_what_cannot_decide() -> None:
    assert claim(low=0).of(case(1, 2, n=2)) == OPEN
    assert claim(low=0).of(case(math.nan, math.nan, n=9)) == OPEN
    assert claim(low=0).of(case(1, 1, n=1, exact=True)) == HOLDS


@pytest.mark.parametrize(
    ("low", "high", "scale", "text"),
    [
        (-math.inf, 0.01, POINTS, "below +1.0 points"), (-math.inf, 0, PLAIN, "below 0"),
        (0, math.inf, POINTS, "above 0"),
        (1.25, math.inf, TIMES, "above 1.25×"), (-0.02, 0.02, POINTS, "within ±2.0 points"),
        (3, 30, TIMES, "from 3.00 to 30.00×"), (0, 0, PLAIN, "at 0.00"),
    ],
)  # fmt: skip
def test_thresholds_in_words(low: float, high: float, scale: Any, text: str) -> None:
    assert claim(low, high, scale=scale).threshold == text


def test_claims_have_a_key_of_their_own_and_say_what_they_are() -> None:
    assert len(CLAIM) == len(CLAIMS) >= 20
    for entry in CLAIMS:
        assert entry.statement.endswith(".") and entry.statistic.endswith(".") and entry.source
        assert math.isfinite(entry.low) or math.isfinite(entry.high)


def test_a_run_speaks_once(tmp_path: Path) -> None:
    for study in ("compare_methods", "table3"):
        two(study, {}, {"label": "full"})(tmp_path, (0.1, 0.1, 0.11))
    entry = CLAIM["as_good_as_full"]
    assert [found.study for found in judge(entry, read(tmp_path, entry.files)).cases] == ["compare_methods"]
    two("table3", {"lr": 7}, {"label": "full"})(tmp_path, (0.1, 0.1, 0.11))
    found = judge(entry, read(tmp_path, entry.files)).cases
    assert [(one.study, one.where) for one in found] == [
        ("compare_methods", f"{MODEL} {TASK}"), ("table3", f"{MODEL} {TASK}"),
    ]  # fmt: skip


def test_the_runs_of_a_subspace_are_those_that_the_study_compares(tmp_path: Path) -> None:
    rows = [row for r in (8, 64) for seed in range(3) for row in run("lora", seed, 0.5, r=r)]
    write(tmp_path, "subspace/runs.csv", rows)
    for key, compared in (("top_shared", [(8, 0), (64, 1)]), ("seeds_share", [(64, 0), (64, 1)])):
        MAKERS[key](tmp_path, (0.1, 0.2, 0.3))
        (found, *_) = judge(CLAIM[key], read(tmp_path, CLAIM[key].files)).cases
        of = pd.DataFrame(rows).drop_duplicates("run_id").set_index("run_id")[["r", "seed"]]
        assert sorted(of.loc[list(found.runs)].itertuples(index=False, name=None)) == compared


def test_seeds_that_only_one_has_do_not_count(tmp_path: Path) -> None:
    rows = [row for seed in range(4) for row in run("lora", seed, 0.6)]
    rows += [row for seed in (0, 3) for row in run("full", seed, 0.5)]
    write(tmp_path, "compare_methods/runs.csv", rows)
    entry = CLAIM["as_good_as_full"]
    (found,) = judge(entry, read(tmp_path, entry.files)).cases
    assert found.n == 2 and found.value == pytest.approx(0.1)
    assert len(found.runs) == 6


def test_where_text_is_written_the_loss_chooses(tmp_path: Path) -> None:
    rows = run("lora", 0, 0.7, validation=0.2) + run("lora", 1, 0.6, validation=0.4)
    rows = [row for row in rows if (row["split"], row["metric"]) != ("validation", "accuracy")]
    write(tmp_path, "table3/runs.csv", rows)
    runs = per_run(read(tmp_path, ["table3/runs.csv"])["table3/runs.csv"])
    assert runs["value"].tolist() == [0.7, 0.6]
    assert runs["validation"].tolist() == pytest.approx([-0.8, -0.6])


def test_a_slope_is_that_of_least_squares_with_a_level_for_each_group() -> None:
    x, groups = pd.Series([0, 1, 2, 0, 1.0, 2]), pd.Series([1, 1, 1, 2, 2, 2])
    y = 3 * x + 10 * groups
    assert slope("", "", x, y, groups, "cells")[2:6] == pytest.approx((3, 3, 3, 6))
    noisy = slope("", "", x, y + pd.Series([0.1, -0.2, 0.1, 0.3, 0, -0.3]), groups, "cells")
    # numpy.linalg.lstsq of y on x and two indicators: slope 2.85, residual sum of squares 0.15, t(3) = 3.182
    assert noisy.value == pytest.approx(2.85)
    assert noisy.high - noisy.value == pytest.approx(3.182446 * (0.15 / 3 / 4) ** 0.5, rel=1e-5)


def test_no_seed_in_common_is_no_case() -> None:
    assert difference("", "", pd.Series({0: 1.0}), pd.Series({1: 1.0}), ()) == []


def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["analysis.claims", str(folder)])
    return command.main()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_scoreboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "quick"
    MAKERS["as_good_as_full"](folder, (0.1, 0.11, 0.12))
    MAKERS["merged_is_free"](folder, (0.1, 0.11, 0.12))
    assert board(folder, monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "claims.md, claims.csv" in printed

    text = (folder / "claims.md").read_text()
    assert text.index(RULE) < text.index("| no.")
    assert re.search(rf"\*\*{len(CLAIMS)} claims: ([^*]+)\.\*\*", text)[1] in printed  # type: ignore[index]
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(cells(line)) for line in table.splitlines()}) == 1
    rows = [cells(line) for line in tables[0].splitlines()[2:]]
    assert [row[1] for row in rows] == [entry.statement for entry in CLAIMS]
    verdicts = {row[1]: row[3] for row in rows}
    assert verdicts[CLAIM["as_good_as_full"].statement] == "**holds**"
    assert verdicts[CLAIM["merged_is_free"].statement] == "**does not hold here**"
    assert verdicts[CLAIM["amplifies"].statement] == "**no runs**"
    texts = {row[1]: row[4] for row in rows}
    assert re.fullmatch(
        r"holds: tiny reviews \+11\.0 \[\+8\.5, \+13\.5\] points \(3 seeds\)",
        texts[CLAIM["as_good_as_full"].statement],
    )
    for number, row in enumerate(rows, start=1):
        assert row[0] == f"[{number}](#{number})" and f'<a id="{number}"></a>{number}. {row[1]}' in text
    links = re.findall(r"\]\(([^#)]+)\)", text)
    assert links and all((folder / link).is_file() for link in links)
    assert "6 runs (" in text and "table3/runs.csv, table4/runs.csv" in text and "`make table3 PRESET=quick`" in text

    table = pd.read_csv(folder / "claims.csv")
    assert table["claim"].drop_duplicates().tolist() == list(CLAIM)
    full = table[table["claim"] == "as_good_as_full"].iloc[0]
    assert full[["verdict", "case", "case_verdict", "n", "runs"]].tolist() == ["holds", "tiny reviews", "holds", 3, 6]
    assert full["value"] == pytest.approx(0.11) and full["claimed_low"] == -0.01
    assert len(set(full["run_ids"].split(" "))) == 6
    missing = table[table["verdict"] == "no runs"]
    assert missing["command"].notna().all() and missing["value"].isna().all()


def test_long_evidence_is_cut_and_studies_told_apart(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for task in range(5):
        for seed, shift in enumerate((0.1, 0.11, 0.12)):
            rows += run("lora", seed, 0.5 + shift, task=f"task{task}") + run("full", seed, 0.5, task=f"task{task}")
    write(tmp_path, "compare_methods/runs.csv", rows)
    two("table3", {"task": "task0"}, {"label": "full", "task": "task0", "lr": 9})(tmp_path, (0.1, 0.2))
    entry = CLAIM["as_good_as_full"]
    text = evidence(judge(entry, read(tmp_path, entry.files)), tmp_path)
    assert "tiny task0 in compare_methods +11.0" in text and " and 2 more; does not count: tiny task0 in table3" in text


@pytest.mark.parametrize("damage", [True, False])
def test_errors_are_one_line_and_exit_code_2(
    damage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quick"
    if damage:
        write(folder, "latency/table.csv", [{"source": "ours"}])
    assert board(folder, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert ("no column model" if damage else "is no folder") in error


def test_the_stored_studies_can_be_judged() -> None:
    folder = ROOT / "results" / "desk"
    frames = read(folder, {name for entry in CLAIMS for name in entry.files})
    verdicts = {entry.key: judge(entry, frames).verdict for entry in CLAIMS}
    assert verdicts["both_zero"] == Verdict.HOLDS
    assert sum(verdict != Verdict.NO_RUNS for verdict in verdicts.values()) >= 20
