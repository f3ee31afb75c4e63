"""How verdicts come about, the tables that claims are read from, and the scoreboard as files and as a command."""

import base64
import gzip
import importlib
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import MODEL, TASK, WRITTEN, run, two, write
from makers import MAKERS

from analysis.claims import __main__ as command
from analysis.claims import words
from analysis.claims.board import CLAIMS
from analysis.claims.engine import RULE, Case, Claim, Judged, Verdict, judge, pool
from analysis.claims.measures import Block, best, per_run
from analysis.claims.scales import NATS, PLAIN, POINTS, TIMES
from analysis.claims.sources import read
from analysis.maths import estimates
from analysis.maths.estimates import NOTHING, Estimate
from analysis.maths.statistics import holm
from lora.config import InputError

ROOT = Path(__file__).parents[3]
CLAIM = {claim.key: claim for claim in CLAIMS}


def claim(low: float = -math.inf, high: float = math.inf, **fields: Any) -> Claim:
    cases = fields.pop("cases", [])
    return Claim(
        "key", "statement", "source", "statistic", (), lambda _: cases, **{"margin": 0.1} | fields, low=low, high=high
    )


def case(value: float, error: float, n: int = 5, task: str = TASK, **fields: Any) -> Case:
    return Case("study", f"{MODEL} {task}", task, Estimate(value, error, n - 1, n), "seeds", **fields)


def one(entry: Claim, folder: Path) -> Judged:
    """The claim judged alone, so that its p is corrected for nothing."""
    (found,) = judge([entry], read(folder, entry.files))
    return found


@pytest.mark.parametrize(
    ("value", "error", "region", "verdict"),
    [
        (1, 0.1, (0, math.inf), Verdict.HOLDS), (-1, 0.1, (0, math.inf), Verdict.FAILS),
        (1, 0.1, (-math.inf, 0), Verdict.FAILS), (0.1, 0.1, (0, math.inf), Verdict.UNDECIDED),
        (0.01, 0.01, (0, math.inf), Verdict.EQUAL), (0.05, 0.01, (0, math.inf), Verdict.HOLDS),
        (0.02, 0.01, (-0.1, 0.1), Verdict.EQUAL), (0.5, 0.01, (-0.1, 0.1), Verdict.FAILS),
        (4, 0.1, (3, 5), Verdict.HOLDS), (0, 0.01, (-0.02, math.inf), Verdict.UNDECIDED),
    ],
)  # fmt: skip
def test_verdicts_come_from_the_estimate(
    value: float, error: float, region: tuple[float, float], verdict: Verdict
) -> None:
    (found,) = judge([claim(*region, cases=[case(value, error)])], {})
    assert found.verdict == verdict
    assert (found.p < 0.05) == (verdict is not Verdict.UNDECIDED)


def test_what_has_no_error_decides_nothing_and_what_is_exact_has_none() -> None:
    for cases in ([case(1, 0.001, n=4)], [case(1, math.nan)]):
        (found,) = judge([claim(0, least=5, cases=cases)], {})
        assert (found.verdict, found.estimate) == (Verdict.UNDECIDED, None)
        assert "too few to count" in words.of_case(found.claim, cases[0])
    (found,) = judge([claim(0, cases=[case(1, 0, exact=True)])], {})
    assert found.verdict == Verdict.HOLDS and math.isnan(found.p) and words.error(found) == "none"


def test_p_is_corrected_for_all_claims_that_are_tested() -> None:
    errors = (0.2, 0.3, 0.4, 0.5)
    tested = [claim(0, cases=[case(1, error)]) for error in errors]
    untested = [claim(0, cases=[case(1, math.nan)]), claim(0, cases=[case(1, 0, exact=True)]), claim(0)]
    alone = [judge([entry], {})[0].p for entry in tested]
    found = judge([*tested, *untested], {})
    assert [judged.p for judged in found[:4]] == pytest.approx(holm(alone))
    assert [judged.verdict for judged in found[:4]] == [
        Verdict.HOLDS if p < 0.05 else Verdict.UNDECIDED for p in holm(alone)
    ]
    assert found[3].verdict == Verdict.UNDECIDED


def test_a_task_counts_once_and_runs_that_are_shared_are_no_further_evidence() -> None:
    apart = [case(1, 0.3, runs=("a",)), case(2, 0.4, runs=("b",))]
    shared = [case(1, 0.3, runs=("a", "c")), case(2, 0.4, runs=("b", "c"))]
    other = case(7, 0.5, task="other")
    assert pool(apart)[0].error == pytest.approx(0.25)
    assert pool(shared)[0].error == pytest.approx(0.35)
    estimate, differ = pool([*apart, other])
    assert estimate.value == pytest.approx((1.5 + 7) / 2)
    assert estimate.error == pytest.approx(math.hypot(0.25, 0.5) / 2)
    assert differ.tau > 3 and differ.i_squared > 0.9


def test_tasks_on_the_other_side_are_named() -> None:
    cases = [case(9, 0.1, task="one"), case(8, 0.1, task="two"), case(-1, 0.01, task="three")]
    (found,) = judge([claim(0, cases=cases)], {})
    assert found.verdict == Verdict.HOLDS and words.opposed(found) == [f"{MODEL} three"]
    assert "the opposite on tiny three" in words.evidence(found)


def test_what_would_decide_it_is_said() -> None:
    (found,) = judge([claim(0, margin=0.05, scale=POINTS, cases=[case(0.01, 0.02, runs=("a", "b"))])], {})
    assert found.effect == 0.05 and found.needed is not None and found.needed > 5
    text = words.evidence(found)
    assert re.match(
        r"\+1\.0 \[-4\.6, \+6\.6\] points; 1 task, 5 seeds, 2 runs; p = 0\.\d+; power \d+% for 5\.0 points; ", text
    )
    assert f"{found.needed} seeds would have 80%" in text
    (large,) = judge([claim(0, margin=0.001, cases=[case(0.03, 0.02)])], {})
    assert large.effect == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("low", "high", "scale", "text"),
    [
        (-math.inf, 0.01, POINTS, "below +1.0 points"), (-math.inf, 0, PLAIN, "below 0"),
        (0, math.inf, POINTS, "above 0"), (1.25, math.inf, TIMES, "above 1.25×"), (1, math.inf, TIMES, "above 1.00×"),
        (-0.02, 0.02, POINTS, "within ±2.0 points"), (3, 30, TIMES, "from 3.00 to 30.00×"), (0, 0, PLAIN, "at 0.00"),
        (-0.02, math.inf, NATS, "above -0.020 nats"),
    ],
)  # fmt: skip
def test_thresholds_in_words(low: float, high: float, scale: Any, text: str) -> None:
    assert claim(low, high, scale=scale, margin=1.5).threshold == text


def test_claims_have_a_key_of_their_own_and_say_what_they_are() -> None:
    assert len(CLAIM) == len(CLAIMS) >= 50
    for entry in CLAIMS:
        assert entry.statement.endswith(".") and entry.statistic.endswith(".") and entry.source
        assert math.isfinite(entry.low) or math.isfinite(entry.high)
        assert entry.margin > 0 or entry.key in ("both_zero", "gradient_bytes")


def test_a_run_speaks_once(tmp_path: Path) -> None:
    for study in ("compare_methods", "scaling"):
        two(study, {}, {"label": "full"})(tmp_path, (0.1, 0.1, 0.11))
    entry = CLAIM["as_good_as_full"]
    assert [found.study for found in one(entry, tmp_path).cases] == ["compare_methods"]
    two("scaling", {"lr": 7}, {"label": "full"})(tmp_path, (0.1, 0.1, 0.11))
    assert [(found.study, found.place) for found in one(entry, tmp_path).cases] == [
        ("compare_methods", f"{MODEL} {TASK}"), ("scaling", f"{MODEL} {TASK}"),
    ]  # fmt: skip


def test_seeds_that_only_one_has_do_not_count(tmp_path: Path) -> None:
    rows = [row for seed in range(4) for row in run("lora", seed, 0.6)]
    rows += [row for seed in (0, 3) for row in run("full", seed, 0.5)]
    write(tmp_path, "compare_methods/runs.csv", rows)
    (found,) = one(CLAIM["as_good_as_full"], tmp_path).cases
    assert found.estimate.n == 2 and found.estimate.value == pytest.approx(0.1)
    assert len(found.runs) == 6
    write(tmp_path, "compare_methods/runs.csv", run("lora", 0, 0.6) + run("full", 1, 0.6))
    assert one(CLAIM["as_good_as_full"], tmp_path).verdict == Verdict.NO_RUNS


def test_where_text_is_written_the_loss_is_judged_and_chooses(tmp_path: Path) -> None:
    rows = run("lora", 0, 0.7, validation=0.2) + run("lora", 1, 0.6, validation=0.4)
    rows = [row for row in rows if (row["split"], row["metric"]) != ("validation", "accuracy")]
    write(tmp_path, "table3/runs.csv", rows)
    runs = per_run(read(tmp_path, ["table3/runs.csv"])["table3/runs.csv"])
    assert runs["value"].tolist() == [0.7, 0.6]
    assert runs["validation"].tolist() == pytest.approx([-0.8, -0.6])
    assert runs["loss"].tolist() == pytest.approx([0.3, 0.4])
    for where in ({}, WRITTEN):
        two("memory_methods", where, {"label": "full"} | where)(tmp_path, (0.1, 0.12))
        found = [bool(one(CLAIM[key], tmp_path).cases) for key in ("as_good_as_full", "as_good_as_full_text")]
        assert found == ([True, False] if not where else [False, True])


def test_runs_that_predict_one_class_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row for seed in range(6) for row in run("lora", seed, 0.80 + 0.001 * seed)]
    rows += [row for seed in range(4) for row in run("full", seed, 0.70 + 0.002 * seed)]
    rows += [row for seed in (4, 5) for row in run("full", seed, 0.5, collapsed=True)]
    write(tmp_path, "compare_methods/runs.csv", rows)
    (found,) = one(CLAIM["as_good_as_full"], tmp_path).cases
    assert found.estimate.n == 4 and found.estimate.value == pytest.approx(0.1 - 0.0015)
    assert found.note == "0 of 6 and 2 of 6 runs predict about one class, and do not count"
    assert len(found.runs) == 12
    assert "2 of 6" in words.of_case(CLAIM["as_good_as_full"], found)


def test_the_best_setting_is_chosen_over_the_seeds_that_all_have() -> None:
    """Seeds 2 and 3 are easy: settings that were run with them are no better for that."""
    scores = {"a": (0.70, 0.72), "b": (0.69, 0.71, 0.90, 0.92), "c": (0.60, 0.61, 0.80)}
    rows = [
        {"settings": name, "seed": seed, "validation": score}
        for name, own in scores.items()
        for seed, score in enumerate(own)
    ]

    def chosen(*more: dict[str, Any]) -> list[tuple[str, int]]:
        found = best(pd.DataFrame([*rows, *more]))
        return list(zip(found["settings"], found["seed"], strict=True))

    assert chosen() == [("a", 0), ("a", 1)]
    # A seed without a score is none, and where none is shared each has its own.
    assert chosen({"settings": "a", "seed": 2, "validation": math.nan}) == [("a", 0), ("a", 1), ("a", 2)]
    assert chosen({"settings": "d", "seed": 9, "validation": 0.5}) == [("b", seed) for seed in range(4)]
    assert best(pd.DataFrame(rows).assign(validation=math.nan)).shape[0] == len(rows)
    assert best(pd.DataFrame(rows)[:0]).empty


def packed(correct: np.ndarray, losses: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    def text(values: np.ndarray) -> str:
        return base64.b64encode(values.tobytes()).decode()

    kinds = {"loss": text(losses.astype("<f2")), "weight": text(weight.astype("<u2"))}
    return {"of": "abc", "n": len(correct), "correct": text(np.packbits(correct))} | kinds


@pytest.mark.parametrize("archived", [True, False])
def test_items_that_are_kept_are_in_the_error(archived: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(1, 9, 50)
    rows, lines, correct, losses = [], [], {}, {}
    for (label, seed), chance in itertools.product(itertools.product(("lora", "full"), range(3)), (0.7,)):
        correct[label, seed] = rng.random(50) < chance
        losses[label, seed] = rng.random(50).astype("<f2")
        rows += run(label, seed, float(correct[label, seed].mean()))
        lines.append({"run_id": rows[-1]["run_id"], "items": packed(correct[label, seed], losses[label, seed], weight)})
    folder = tmp_path / "results" / "quick"
    write(folder, "compare_methods/runs.csv", rows)
    write(folder, "table3/runs.csv", [row | WRITTEN for row in rows])
    if archived:
        for study in ("compare_methods", "table3"):
            with gzip.open(folder / study / "records.jsonl.gz", "wt") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
    else:
        for line in lines:
            own = tmp_path / "results" / "runs" / str(line["run_id"])
            own.mkdir(parents=True)
            (own / "items.json").write_text(json.dumps(line["items"]))
    differences = np.stack([1.0 * correct["lora", seed] - correct["full", seed] for seed in range(3)])
    judged = one(CLAIM["as_good_as_full"], folder)
    assert judged.cases[0].estimate == pytest.approx(estimates.two_way(differences))
    assert judged.cases[0].estimate.error > estimates.mean(differences.mean(axis=1)).error
    assert words.error(judged) == "seeds and test items"
    assert "items in the error" in words.of_case(judged.claim, judged.cases[0])

    lower = np.stack([losses["full", seed] - losses["lora", seed] for seed in range(3)]) * weight / weight.mean()
    (found,) = one(CLAIM["as_good_as_full_text"], folder).cases
    assert found.estimate == pytest.approx(estimates.two_way(lower.astype(float)), rel=1e-3)
    # The mean is that over target tokens.
    of_tokens = [np.average(losses["full", s].astype(float) - losses["lora", s], weights=weight) for s in range(3)]
    assert found.estimate.value == pytest.approx(np.mean(of_tokens), rel=1e-3)


def test_items_of_one_side_alone_or_of_other_tests_are_not_paired(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "quick"
    rows = [row for seed in range(2) for label in ("lora", "full") for row in run(label, seed, 0.5 + 0.01 * seed)]
    write(folder, "compare_methods/runs.csv", rows)
    some = packed(np.ones(9, bool), np.ones(9), np.ones(9))
    ids = list(dict.fromkeys(row["run_id"] for row in rows))
    for given in ([some, None, some, some], [some, some | {"of": "other"}, some, some]):
        with gzip.open(folder / "compare_methods" / "records.jsonl.gz", "wt") as file:
            for run_id, items in zip(ids, given, strict=True):
                file.write(json.dumps({"run_id": run_id, "items": items}) + "\n")
        assert not one(CLAIM["as_good_as_full"], folder).cases[0].items
    (folder / "compare_methods" / "records.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"records\.jsonl\.gz is damaged .*; pack the study again"):
        one(CLAIM["as_good_as_full"], folder)


def test_a_study_whose_runs_all_predict_one_class_has_no_estimate(tmp_path: Path) -> None:
    rows = [row for seed in range(3) for row in run("lora", seed, 0.5, collapsed=True)]
    rows += [row for seed in range(6) for row in run("full", seed, 0.80 + 0.002 * seed)]
    write(tmp_path, "compare_methods/runs.csv", rows)
    judged = one(CLAIM["as_good_as_full"], tmp_path)
    assert judged.verdict == Verdict.UNDECIDED and judged.cases[0].estimate is NOTHING
    assert words.of_case(judged.claim, judged.cases[0]).startswith("3 of 3 and 0 of 6 runs predict about one class")


def test_the_spread_is_pooled_over_the_settings_that_are_not_compared(tmp_path: Path) -> None:
    rows = []
    for index, (label, shifts) in enumerate(
        {"lora": (0, 0.01), "full": (0.0, 0.008), "a": (0, 0.03), "b": (0.03, 0), "c": (0.01, -0.02)}.items()
    ):
        rows += [row for seed, shift in enumerate(shifts) for row in run(label, seed, 0.5 + 0.05 * index + shift)]
    write(tmp_path, "compare_methods/runs.csv", rows)
    runs = per_run(read(tmp_path, ["compare_methods/runs.csv"])["compare_methods/runs.csv"])
    block = Block("compare_methods", "where", TASK, runs, pd.Series(False, runs.index))
    pooled = block.others(runs[runs["label"] == "lora"], runs[runs["label"] == "full"])
    gaps = pd.Series([0.03, -0.03, -0.03])  # of three settings: the residual is half of what a gap is off the mean
    assert pooled.freedom == 2
    assert pooled.deviation == pytest.approx(math.sqrt(((gaps - gaps.mean()) ** 2).sum() / 2 / 2))
    (found,) = one(CLAIM["as_good_as_full"], tmp_path).cases
    assert found.estimate.freedom == 2 and found.estimate.error == pytest.approx(pooled.deviation)


def test_sizes_are_said_in_the_singular_and_plural() -> None:
    def said(*cases: Case) -> str:
        return words.sizes(judge([claim(0.0, cases=list(cases))], {})[0])

    one, other = (case(0.2, 0.1, task=task, runs=(f"{task} 1", f"{task} 2")) for task in "ab")
    assert said(one) == "1 task, 5 seeds, 2 runs"
    assert said(one, other) == "2 tasks, 5 seeds, 4 runs"
    assert said(one._replace(runs=())) == "1 model, 5 seeds"
    assert said(one._replace(unit="tasks")) == "5 tasks, 2 runs"
    assert said(one._replace(runs=("alone",), estimate=Estimate(0.2, 0.1, 0, 1))) == "1 task, 1 seed, 1 run"


def board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["analysis.claims", str(folder)])
    return command.main()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_scoreboard_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quick"
    two("compare_methods", {}, {"label": "full"}, {"settings": "worse"})(folder, (0.1, 0.11, 0.12))
    MAKERS["merged_is_free"](folder, (0.3, 0.31, 0.32))
    assert board(folder, monkeypatch) == 0
    counts = re.search(r"(\d+ claims: .*)\)", capsys.readouterr().out)
    text = (folder / "claims.md").read_text()
    assert counts and f"**{counts[1]}.**" in text and RULE in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(cells(line)) for line in table.splitlines()}) == 1
    rows = [cells(line) for line in tables[0].splitlines()[2:]]
    assert [row[1] for row in rows] == [entry.statement for entry in CLAIMS]
    verdicts = {row[1]: row[3] for row in rows}
    assert verdicts[CLAIM["as_good_as_full"].statement] == "**holds**"
    assert verdicts[CLAIM["merged_is_free"].statement] == "**does not hold here**"
    assert verdicts[CLAIM["amplifies_smallest"].statement] == "**no runs**"
    texts = {row[1]: row[4] for row in rows}
    assert re.fullmatch(
        r"\+11\.0 \[\+8\.5, \+13\.5\] points; 1 task, 3 seeds, 6 runs; p = 0\.00\d",
        texts[CLAIM["as_good_as_full"].statement],
    )
    for number, row in enumerate(rows, start=1):
        assert row[0] == f"[{number}](#{number})" and f'<a id="{number}"></a>{number}. {row[1]}' in text
    links = re.findall(r"\]\(([^#)]+)\)", text)
    assert links and all((folder / link).is_file() for link in links)
    assert "6 runs (" in text and "scaling/runs.csv" in text and "`make scaling PRESET=quick`" in text
    assert "Error: seeds only." in text
    for key, file in re.findall(r"^- Key: `(.*)`, in `(.*)`$", text, re.MULTILINE):
        of = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        assert key in {claim.key for claim in of.CLAIMS} and Path(of.__file__) == ROOT / file
    assert text.count("\n- Key: ") == len(CLAIMS)

    table = pd.read_csv(folder / "claims.csv")
    assert table["claim"].drop_duplicates().tolist() == list(CLAIM)
    full = table[table["claim"] == "as_good_as_full"].iloc[0]
    assert full[["verdict", "case", "case_n", "runs", "tasks", "replicates", "error"]].tolist() == [
        "holds", "tiny reviews", 3, 6, 1, 3, "seeds only",
    ]  # fmt: skip
    assert full["estimate"] == full["case_estimate"] == pytest.approx(0.11)
    assert full["claimed_low"] == -0.01 and full["margin"] == 0.01 and full["p_holm"] < 0.05
    assert full["low"] == pytest.approx(0.11 - 4.302653 * 0.01 / 3**0.5, rel=1e-4)
    assert len(set(full["run_ids"].split(" "))) == 6
    missing = table[table["verdict"] == "no runs"]
    assert missing["command"].notna().all() and missing["estimate"].isna().all()


@pytest.mark.parametrize("damage", [True, False])
def test_errors_are_one_line_and_exit_code_2(
    damage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "quick"
    if damage:
        write(folder, "latency/trials.csv", [{"round": 1}])
    assert board(folder, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert ("no column model" if damage else "is no folder") in error


def test_a_subspace_without_its_chance_is_one_clear_line(tmp_path: Path) -> None:
    MAKERS["top_shared"](tmp_path, (0.1, 0.2))
    path = tmp_path / "subspace/phi_gaussian.csv"
    pd.read_csv(path).assign(dim=7).to_csv(path, index=False)
    with pytest.raises(InputError, match="has no rows of 3 and 6 random directions of 60"):
        one(CLAIM["top_shared"], tmp_path)


def test_the_stored_studies_are_judged_as_the_stored_scoreboard_says() -> None:
    folder = ROOT / "results" / "desk"
    judged = judge(CLAIMS, read(folder, {name for entry in CLAIMS for name in entry.files}))
    stored = pd.read_csv(folder / "claims.csv").drop_duplicates("claim").set_index("claim")
    assert {found.claim.key: str(found.verdict) for found in judged} == stored["verdict"].to_dict()
    estimates = {found.claim.key: found.p for found in judged if found.p == found.p}
    assert estimates == pytest.approx(stored["p_holm"].dropna().to_dict(), rel=1e-4)


def test_nothing_heavy_is_loaded() -> None:
    """The board and its command import neither torch nor matplotlib: a process that has only them says so."""
    code = (
        "import sys, analysis.claims.__main__, analysis.claims.report\n"
        "print(sorted({'torch', 'matplotlib', 'transformers', 'peft'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
