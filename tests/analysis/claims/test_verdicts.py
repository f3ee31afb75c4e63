"""Every claim on made-up studies: each verdict comes out, and the estimate is the statistic that was put in."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from makers import MAKERS
from torch import nn

from analysis.claims import cost, words
from analysis.claims.board import CLAIMS
from analysis.claims.engine import Claim, Judged, Verdict, judge
from analysis.claims.report import adds
from analysis.claims.sources import read
from lora import budget
from lora.config import LoRAConfig

ROOT = Path(__file__).parents[3]
COMPUTED = [claim for claim in CLAIMS if not claim.files]
OF_RUNS = [claim for claim in CLAIMS if claim.files]
EXACT = [claim.key for claim in CLAIMS if claim.key.startswith(("both_zero", "third_of_memory"))]  # of no error
KINDS = ("holds", "fails", "open")
WHOLE = {
    "larger_base": {
        "holds": (-4, -3, -4, -3, -4, -3),
        "fails": (4, 3, 4, 3, 4, 3),
        "open": (-3, 0, 3, 0, 1),
        "few": (-3,),
    }
}


def values(claim: Claim, kind: str) -> tuple[float, ...]:
    """Values of the statistic whose interval is within the claimed region, outside, or across its end; or too few."""
    if claim.key in WHOLE:
        return WHOLE[claim.key][kind]
    ends = [end for end in (claim.low, claim.high) if np.isfinite(end)]
    step = 0.1 * max(1, *map(abs, ends)) if claim.scale.factor == 1 else 0.1
    outside = claim.high + step if np.isfinite(claim.high) else claim.low - step
    inside = sum(ends) / 2 if len(ends) == 2 else 2 * ends[0] - outside
    if kind == "open":
        shifts = (-1, 0.1, 1, -0.1, 0.05)  # by more than the margin: else it would be equal
        if claim.scale.log:
            return tuple(ends[0] * claim.margin ** (2 * shift) for shift in shifts)
        return tuple(ends[0] + 2 * max(claim.margin, step / 4) * shift for shift in shifts)
    centre, spread = (outside if kind == "fails" else inside), 0 if claim.key in EXACT else 1e-3 * step
    n = max(claim.least, 3) if kind != "few" else claim.least - 1
    return tuple(centre + spread * (-1, 1, 0)[index % 3] for index in range(n))


def found(claim: Claim, kind: str, folder: Path) -> Judged:
    MAKERS[claim.key](folder, values(claim, kind))
    (judged,) = judge([claim], read(folder, claim.files))
    return judged


@pytest.mark.parametrize(
    ("key", "kind"),
    [(claim.key, kind) for claim in OF_RUNS for kind in KINDS if kind != "open" or claim.key not in EXACT],
)
def test_verdicts_come_from_the_interval(key: str, kind: str, tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.key == key)
    judged = found(claim, kind, tmp_path)
    inside = Verdict.EQUAL if claim.of_equality else Verdict.HOLDS
    assert judged.verdict == {"holds": inside, "fails": Verdict.FAILS, "open": Verdict.UNDECIDED}[kind]
    put_in = np.array(values(claim, kind))
    assert judged.estimate is not None
    expected = np.log(put_in).mean() if claim.scale.log else put_in.mean()
    assert judged.cases[0].estimate.value == pytest.approx(expected, abs=1e-9)
    assert judged.estimate.value == pytest.approx(expected, abs=1e-9)
    text = words.evidence(judged)
    assert claim.scale.number(judged.estimate.value) in text
    assert claim.key in EXACT or words.number(len(put_in), judged.cases[0].unit) in text


@pytest.mark.parametrize("claim", [claim for claim in OF_RUNS if claim.key not in EXACT], ids=lambda claim: claim.key)
def test_too_few_replicates_decide_nothing(claim: Claim, tmp_path: Path) -> None:
    judged = found(claim, "few", tmp_path)
    assert judged.verdict == Verdict.UNDECIDED and judged.estimate is None and judged.cases
    assert f"{claim.least} are needed" in words.evidence(judged)


def test_without_runs_there_is_the_command_that_makes_them(tmp_path: Path) -> None:
    for judged in judge(OF_RUNS, {}):
        assert judged.verdict == Verdict.NO_RUNS and words.evidence(judged) == ""
        target = re.fullmatch(rf"make ([a-z0-9-]+) PRESET={tmp_path.name}( ARGS='[^']+')?", adds(judged, tmp_path))
        assert target and re.search(rf"^{target[1]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_command_adds_the_seeds_that_would_decide_it(tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.key == "bitfit_below")
    judged = found(claim, "open", tmp_path)
    assert judged.needed is not None
    seeds = ",".join(map(str, range(min(judged.needed, 20))))
    assert adds(judged, tmp_path) == f"make compare-methods PRESET={tmp_path.name} ARGS='seed={seeds}'"


@pytest.mark.parametrize("claim", COMPUTED, ids=lambda claim: claim.key)
def test_what_is_computed_follows_the_computation(claim: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge([claim], {})[0].verdict == Verdict.HOLDS
    monkeypatch.setattr(cost, "counted", lambda d, r: (r, d))
    assert judge([claim], {})[0].verdict == Verdict.FAILS


@pytest.mark.parametrize(("d", "r"), [(4096, 16), (64, 1), (8, 8)])
def test_trained_parameters_are_those_of_a_module(d: int, r: int) -> None:
    model = nn.ModuleDict({"q": nn.Linear(d, d, bias=False, device="meta")})
    trained = budget.parameters(model, LoRAConfig(r=r, weight_types=(), modules=("q",)))
    assert cost.counted(d, r) == (trained, sum(parameter.numel() for parameter in model.parameters()))


def test_a_plan_without_the_other_is_no_case(tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS if claim.key == "third_of_memory_large")
    MAKERS[claim.key](tmp_path, (0.25,))
    (judged,) = judge([claim], read(tmp_path, claim.files))
    assert [case.place for case in judged.cases] == ["one, 1 plans"]
    assert judged.estimate is not None and math.exp(judged.estimate.value) == pytest.approx(0.25)
    path = tmp_path / "memory/plans.csv"
    lines = [line for line in path.read_text().splitlines() if "full" not in line]
    path.write_text("\n".join(lines) + "\n")
    assert judge([claim], read(tmp_path, claim.files))[0].verdict == Verdict.NO_RUNS
