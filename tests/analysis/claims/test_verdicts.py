"""Every claim on made-up studies: each verdict comes out, and the estimate is the statistic that was put in."""

import re
from pathlib import Path

import numpy as np
import pytest
from made_up import write
from makers import MAKERS

from analysis.claims import cost, report
from analysis.claims.board import CLAIMS
from analysis.claims.engine import TIMES, Claim, Judged, Verdict, judge
from analysis.claims.sources import read

ROOT = Path(__file__).parents[3]
COMPUTED = [claim for claim in CLAIMS if not claim.files]
OF_RUNS = [claim for claim in CLAIMS if claim.files]
EXACT = ("both_zero",)  # statistics that do not scatter, and so are on one side or the other
VERDICTS = {"holds": Verdict.HOLDS, "fails": Verdict.FAILS, "open": Verdict.UNDECIDED}
WHOLE = {"larger_base": {"holds": (-4, -3, -2), "fails": (2, 3, 4), "open": (-3, 0, 3), "few": (-3, -4)}}


def values(claim: Claim, kind: str) -> tuple[float, ...]:
    """Values of the statistic whose interval is within the claimed region, outside, or across its end; or too few."""
    if claim.key in WHOLE:
        return WHOLE[claim.key][kind]
    ends = [end for end in (claim.low, claim.high) if np.isfinite(end)]
    step = 0.1 * max(1, *map(abs, ends)) if claim.scale.factor == 1 else 0.1
    outside = claim.high + step if np.isfinite(claim.high) else claim.low - step
    inside = sum(ends) / 2 if len(ends) == 2 else 2 * ends[0] - outside
    if kind == "open":
        return tuple(ends[0] + 0.5 * step * shift for shift in (-1, 0, 1))
    centre, spread = (outside if kind == "fails" else inside), 0 if claim.key in EXACT else 1e-3 * step
    return tuple(centre + spread * shift for shift in ((-1, 1) if kind == "few" else (-1, 0, 1)))


def found(claim: Claim, kind: str, folder: Path) -> Judged:
    MAKERS[claim.key](folder, values(claim, kind))
    return judge(claim, read(folder, claim.files))


@pytest.mark.parametrize(
    ("key", "kind"),
    [(claim.key, kind) for claim in OF_RUNS for kind in VERDICTS if kind != "open" or claim.key not in EXACT],
)
def test_verdicts_come_from_the_interval(key: str, kind: str, tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.key == key)
    judged = found(claim, kind, tmp_path)
    assert judged.verdict == VERDICTS[kind]
    case, put_in = judged.cases[0], np.array(values(claim, kind))
    is_ratio = claim.scale._replace(digits=0) == TIMES._replace(digits=0)
    assert case.value == pytest.approx(np.exp(np.log(put_in).mean()) if is_ratio else put_in.mean(), abs=1e-9)
    assert case.counts
    assert case.low <= case.value <= case.high
    text = report.evidence(judged, tmp_path)
    assert claim.scale.number(case.value) in text
    assert f"({case.n} {case.unit})" in text


@pytest.mark.parametrize("claim", OF_RUNS, ids=lambda claim: claim.key)
def test_too_few_seeds_decide_nothing(claim: Claim, tmp_path: Path) -> None:
    judged = found(claim, "few", tmp_path)
    assert judged.verdict == Verdict.UNDECIDED
    assert judged.cases and not any(case.counts for case in judged.cases)
    assert "does not count" in report.evidence(judged, tmp_path)


@pytest.mark.parametrize("claim", OF_RUNS, ids=lambda claim: claim.key)
def test_without_runs_there_is_the_command_that_makes_them(claim: Claim, tmp_path: Path) -> None:
    judged = judge(claim, read(tmp_path, claim.files))
    assert judged == Judged(claim, [], Verdict.NO_RUNS)
    text = report.evidence(judged, tmp_path)
    target = re.fullmatch(rf"`make ([a-z0-9-]+) PRESET={tmp_path.name}( ARGS='[^']+')?`", text)
    assert target
    assert re.search(rf"^{target[1]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("claim", COMPUTED, ids=lambda claim: claim.key)
def test_what_is_computed_follows_the_computation(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(claim, {}).verdict == Verdict.HOLDS
    monkeypatch.setattr(cost, "counted", lambda d, r: (r, d))
    assert judge(claim, {}).verdict == Verdict.FAILS


@pytest.mark.parametrize(("d", "r"), [(4096, 16), (64, 1), (8, 8)])
def test_trained_parameters_are_counted(d: int, r: int) -> None:
    assert cost.counted(d, r) == (2 * d * r, d * d)


def test_a_planned_share_of_memory_is_exact(tmp_path: Path) -> None:
    titles = {"full, AMP": 1000, "LoRA": 250, "BAdam": 1}
    rows = [
        {"model": "large", "title": title, "batch": 1, "length": 64, "checkpointing": False, "peak": peak}
        for title, peak in titles.items()
    ]
    write(tmp_path, "memory/plans.csv", rows)
    claim = next(claim for claim in CLAIMS if claim.key == "third_of_memory")
    judged = judge(claim, read(tmp_path, claim.files))
    assert judged.verdict == Verdict.HOLDS
    assert [(case.where, case.value) for case in judged.cases] == [("large, planned, 1 × 64, activations kept", 0.25)]
    write(tmp_path, "memory/plans.csv", [row for row in rows if row["title"] == "LoRA"])
    assert judge(claim, read(tmp_path, claim.files)).verdict == Verdict.NO_RUNS
