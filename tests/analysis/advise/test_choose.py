"""What is recommended of made-up looks of which the truth is known; limits and margins as they are typed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from analysis.advise import plan
from analysis.advise.choose import Margin, bound, estimate, recommend
from analysis.advise.looks import Looked, Pick, blocks, uniform, whole
from analysis.advise.plan import LADDER, Plan, Size
from analysis.advise.subject import Subject
from lora.errors import InputError

SIZE = Size(4000, 1000, 0.01, 0.003, 5.0, None, "not asked")


class MadeUp:
    """Looks whose score is 0.5, and 0.1 more for each of q and v that has its needed rank; others are worth nothing."""

    metric = "accuracy"

    def __init__(self, subject: Subject, needed: dict[str, int], r_max: int = 16, scatter: float = 0.0) -> None:
        self.subject, self.needed, self.r_max, self.scatter = subject, needed, r_max, scatter
        self.spectra = np.zeros((len(subject.units), r_max))
        for unit, rank in needed.items():
            self.spectra[subject.units.index(unit), :rank] = 1.0

    def take(self, picks: Sequence[Pick]) -> dict[Pick, Looked]:
        return {pick: self._look(pick) for pick in picks}

    def _look(self, pick: Pick) -> Looked:
        ranks = dict(zip(self.subject.units, pick.ranks, strict=True))
        share = 0.5 + sum(0.1 for unit, rank in self.needed.items() if ranks[unit] >= rank)
        items = np.zeros((3, 1000))
        items[:, : round(1000 * share)] = 1.0
        return Looked(items.mean(axis=1), items)


def advised(subject: Subject, needed: dict[str, int]) -> tuple[Any, dict[str, int]]:
    looks: Any = MadeUp(subject, needed)
    found = recommend(subject, looks, Margin.of("0.5"), None, heal=False)
    return found, dict(zip(subject.units, found.best.pick.ranks, strict=True))


def test_units_that_are_worth_nothing_get_nothing(subject_of: Callable[..., Subject]) -> None:
    found, ranks = advised(subject_of("bert"), {"q": 4, "v": 4})
    assert {unit: rank for unit, rank in ranks.items() if rank} == {"q": 4, "v": 4}
    worth = {own.unit: own.without.above.value for own in found.worth}
    assert worth["q"] == pytest.approx(-0.1) and worth["down"] == 0
    assert found.largest.score.value == pytest.approx(0.7)


def test_a_rank_for_each_unit_where_that_is_cheaper(subject_of: Callable[..., Subject]) -> None:
    found, ranks = advised(subject_of("bert"), {"q": 8, "v": 1})
    assert {unit: rank for unit, rank in ranks.items() if rank} == {"q": 8, "v": 1}
    assert len(set(found.plain.pick.ranks) - {0}) == 1 and found.plain.parameters > found.best.parameters
    assert found.holds(found.plain)


def test_the_bound_is_below_what_is_found_by_as_much_as_seeds_and_items_scatter() -> None:
    same = np.ones((3, 50))
    assert bound(estimate(Looked(same.mean(axis=1), same - same))) == 1.0, "nothing scatters"
    few = np.array([[0.0] * 49 + [-1.0]] * 3)
    by_items = estimate(Looked(few.mean(axis=1), few))
    assert by_items.value == pytest.approx(-0.02) and bound(by_items) < -0.02 - by_items.error
    scores = np.array([0.0, -0.01, 0.01])
    assert bound(estimate(Looked(scores, None))) == pytest.approx(-2.920 * 0.01 / np.sqrt(3), abs=1e-4)


def test_picks() -> None:
    assert whole(16) == [0, 1, 2, 4, 8, 16]
    assert uniform(3, 4, but=1).ranks == (4, 0, 4) and uniform(3, 4, only=1).ranks == (0, 4, 0)
    assert blocks(1) == [] and blocks(3) == [(0,), (1,), (2,)]
    assert len(blocks(30)) == 6 and sum(blocks(30), ()) == tuple(range(30))


def test_margins() -> None:
    assert Margin.of("0.5").score(loss=False, gain=0.2) == pytest.approx(0.005)
    assert Margin.of("0.5").score(loss=True, gain=0.2) == pytest.approx(0.01)
    assert Margin.of("5%").score(loss=False, gain=0.2) == pytest.approx(0.01)
    with pytest.raises(InputError, match="no better than the head alone"):
        Margin.of("5%").score(loss=False, gain=0.0)
    for wrong in ("", "0", "-1", "nan", "100%", "x%"):
        with pytest.raises(InputError, match="MARGIN="):
            Margin.of(wrong)


def test_plans_are_cheaper_down_the_ladder_and_a_quarter_of_the_sweep_at_most() -> None:
    plans = [Plan(64, *one, epochs=2, looks=54) for one in LADDER]
    assert [own.runs for own in plans] == [14, 9, 6] and [own.worth for own in plans] == [8, 6, 3.75]
    seconds = [own.seconds(SIZE) for own in plans]
    assert seconds == sorted(seconds, reverse=True)
    assert plans[0].sweep == 189 and plans[0].share(SIZE) < 0.25
    short = Plan(4, *LADDER[0], epochs=2, looks=54)
    assert short.share(SIZE) < 0.25, "also where few ranks are possible"


@pytest.mark.parametrize(("limit", "rung"), [("", 0), ("14", 0), ("13", 1), ("6", 2), ("10h", 0)])
def test_the_best_plan_within_a_limit(limit: str, rung: int) -> None:
    plans = [Plan(64, *one, epochs=2, looks=54) for one in LADDER]
    assert plan._first(plans, SIZE, limit) == rung


def test_what_fits_a_budget_that_is_too_small() -> None:
    plans = [Plan(64, *one, epochs=2, looks=54) for one in LADDER]
    whole_run, smallest = SIZE.run(2), plans[-1].seconds(SIZE)
    with pytest.raises(
        InputError, match=r"one run takes about .* with ARGS='task.train_examples=(\d+)' it fits"
    ) as caught:
        plan._first(plans, SIZE, f"{0.8 * smallest:.0f}s")
    count = int(str(caught.value).partition("train_examples=")[2].partition("'")[0])
    assert plans[-1].seconds(SIZE._replace(train=count)) <= 0.8 * smallest + 1
    assert whole_run < smallest


def test_named_modules_where_weight_types_are_not_known(
    subject_of: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora.targets.weight_types", lambda model: ())
    with pytest.raises(InputError, match=r"weight types are not known for a bert model: name modules"):
        subject_of("bert")
    subject = subject_of("bert", "method.modules=['*.intermediate.dense','*.query']")
    assert subject.units == ("*.intermediate.dense", "*.query")
    assert subject.unit_of("bert.encoder.layer.1.attention.self.query", "all") == 1
    config = subject.config({"*.query": 2}, 1e-3, 0)
    assert list(config.method.modules) == ["*.query"] and config.method.r == 2 and not config.method.weight_types
    assert subject.parameters({"*.query": 2}) == 2 * 2 * (32 + 32)


def test_a_plan_that_was_begun_goes_on(tmp_path: Any, subject_of: Callable[..., Subject]) -> None:
    """The plan that was made first is gone on with, though the machine is slower now."""
    subject = subject_of("bert")
    first = plan.make(subject, 8, SIZE, "3h", [], 0, tmp_path)
    slower = SIZE._replace(step=1.0)
    assert plan.make(subject, 8, slower, "3h", [], 0, tmp_path) == first
    assert plan.make(subject, 8, slower, "", [], 0, tmp_path).runs == 14
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(InputError, match="too small"):
        plan.make(subject, 8, slower, "3h", [], 0, tmp_path)
