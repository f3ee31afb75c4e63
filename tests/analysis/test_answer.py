"""The answer of a study, on made-up runs of which it is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.kit import answer, table_md
from analysis.maths import statistics
from analysis.studies.weight_types import sets as weight_sets

NOISE = np.array([0.004, -0.004, 0.001, -0.001, 0.0])  # of a seed, other for every option: the mean is 0


def runs_of(scores: Mapping[Any, Sequence[float]], **fields: Any) -> pd.DataFrame:
    """The runs of some options, a score a seed, as `tables.load_runs` gives them: an option is a rank, or (label,
    settings, parameters). Validation scores are the test scores, unless `validation` says other means; of what is
    written there is no score, but the loss."""
    validation, written = fields.pop("validation", {}), fields.pop("written", False)
    rows = []
    for option, values in scores.items():
        label, settings, size = option if isinstance(option, tuple) else ("lora", f"r={option}, q+v", 1000 * option)
        for seed, value in enumerate(values):
            shared = {
                "run_id": f"{option} {seed} {fields}", "role": "study", "model": "minilm", "task": "reviews",
                "method": label, "label": label, "settings": settings, "weight_types": "q+v",
                "r": option if isinstance(option, int) else None, "seed": seed, "trainable_params": size,
                "budget": 1000, "test_rows": 1000, "lr": 1e-3, "protocol": None, "collapsed": None,
            } | fields  # fmt: skip
            seen = {"validation": validation.get(option, value), "test": value}
            for split, score in seen.items():
                rows.append(shared | {"split": split, "metric": "loss", "value": 1 - score, "main": False})
                if split == "test" or not written:
                    rows.append(shared | {"split": split, "metric": "accuracy", "value": score, "main": True})
    return pd.DataFrame(rows)


def noisy(mean: float, shift: int, seeds: int = 5) -> list[float]:
    return list(mean + np.roll(NOISE, shift)[:seeds])


def test_one_seed_decides_nothing() -> None:
    (line,) = answer.ranks(runs_of({1: [0.5], 8: [0.9], 64: [0.8]}))
    assert line == (
        "reviews (minilm), LoRA on q+v: nothing is decided, one seed tells no rank from another (n = 1,000 test rows, "
        "1 seed); the best on validation data, maybe by chance, is r = 8: add ARGS='seed=0,1,2,3,4'."
    )


def test_two_seeds_leave_all_open() -> None:
    (line, small) = answer.ranks(runs_of({1: [0.80, 0.79], 8: [0.82, 0.80], 64: [0.81, 0.80]}, test_rows=60))
    assert line == (
        "reviews (minilm), LoRA on q+v: the smallest rank that is not told apart from the best (r = 8 on validation "
        "data) is r = 1; undecided between r = 1 and r = 8 (n = 60 test rows, 2 seeds): add ARGS='seed=0,1,2,3,4'."
    )
    assert small == (
        "reviews: on other test rows than these 60 scores would differ, by a standard error of up to 6.5 points, which "
        "more seeds do not lessen."
    )


def test_a_clear_winner() -> None:
    """r = 4 is the best, r = 1 and 2 are far below, r = 8 is as good."""
    scores = {1: noisy(0.60, 0), 2: noisy(0.70, 1), 4: noisy(0.901, 2), 8: noisy(0.90, 3)}
    (line,) = answer.ranks(runs_of(scores))
    assert (
        "the smallest rank that is enough is r = 4, the best on validation data (n = 1,000 test rows, 5 seeds)" in line
    )
    assert "; r = 1 and r = 2 are worse (r = 2 by -20.1 ± " in line
    assert "add" not in line


def test_a_small_rank_that_is_enough() -> None:
    scores = {1: noisy(0.60, 0), 2: noisy(0.899, 1), 8: noisy(0.90, 3), 64: noisy(0.898, 2)}
    (line,) = answer.ranks(runs_of(scores))
    assert (
        "the smallest rank that is enough is r = 2, at most a point below the best (r = 8 on validation data; -0.1 ±"
        in line
    )
    assert line.endswith("; r = 1 is worse (-30.0 ± 0.5 points).")
    pair = statistics.paired(pd.Series(scores[2]), pd.Series(scores[8]))
    assert f"{100 * pair.difference:+.1f} ± {100 * pair.interval:.1f} points" in line


def test_between_worse_and_enough() -> None:
    """r = 2 varies so much that three seeds neither show it to be worse nor as good."""
    scores = {1: [0.5, 0.501, 0.499], 2: [0.92, 0.80, 0.86], 4: [0.9, 0.901, 0.899], 8: [0.9, 0.9015, 0.8995]}
    (line,) = answer.ranks(runs_of(scores))
    assert (
        "is r = 2; undecided between r = 2 and r = 4 (n = 1,000 test rows, 3 seeds): add ARGS='seed=0,1,2,3,4'" in line
    )
    assert line.endswith("; r = 1 is worse (-40.0 ± 0.1 points).")


def test_ties_are_as_good() -> None:
    """The same score for every seed: no spread, and no difference."""
    (line,) = answer.ranks(runs_of({1: [0.8] * 3, 8: [0.8] * 3}))
    assert "the smallest rank that is enough is r = 1" in line
    (open_line,) = answer.ranks(runs_of({1: [0.8] * 2, 8: [0.8] * 2}, validation={8: 0.81}))
    assert "undecided between r = 1 and r = 8 (n = 1,000 test rows, 2 seeds)" in open_line


def test_what_is_better_on_test_data_than_the_choice_is_told() -> None:
    scores = {1: noisy(0.60, 0), 8: noisy(0.80, 1), 64: noisy(0.90, 2)}
    (line,) = answer.ranks(runs_of(scores, validation={1: 0.5, 8: 0.9, 64: 0.85}))
    assert "(r = 8 on validation" not in line
    assert "r = 8, the best on validation data" in line
    assert line.endswith(" On test data, r = 64 (+10.0 ± 0.7 points) did better than it.")


def test_two_tasks_and_more_seeds() -> None:
    fuzzy = {r: [0.8 + 0.05 * (-1) ** (seed + r) for seed in range(10)] for r in (1, 2)}
    parts = [
        runs_of(fuzzy, task="reviews", test_rows=None, validation={1: 0.7}),
        runs_of({1: [0.5], 8: [0.6]}, task="news"),
    ]
    first, second = answer.ranks(pd.concat(parts, ignore_index=True))
    assert first.startswith("reviews (minilm)") and "(10 seeds): add ARGS='seed=0,1,2,3,4,5,6,7,8,9,10," in first
    assert second.startswith("news (minilm)") and "one seed tells no rank" in second


def test_what_is_written_is_compared_by_its_loss() -> None:
    wide = [3 * value - 1.8 for value in noisy(0.90, 1)]  # 0.9 with a spread of seeds: less than 0.02 below, not 0.01
    runs = runs_of({1: noisy(0.60, 0), 2: wide, 8: noisy(0.90, 3)}, written=True, validation={8: 0.91}, test_rows=60)
    chance = np.random.default_rng(0).random(len(runs))  # what is written says nothing here, and its loss all
    (line,) = answer.ranks(runs.assign(value=runs["value"].where(runs["metric"] == "loss", chance)))
    pair = statistics.paired(pd.Series(wide), pd.Series(noisy(0.90, 3)))
    assert 0.01 < pair.interval - pair.difference < 0.02
    assert f"is r = 2, at most 0.02 nats below the best (r = 8 on validation data; {-pair.difference:+.3f} ±" in line
    assert line.endswith("nats of loss) (n = 60 test rows, 5 seeds); r = 1 is worse (+0.300 ± 0.005 nats of loss).")


def test_no_question_no_answer() -> None:
    assert answer.ranks(runs_of({8: [0.8, 0.9]})) == []


def test_methods_are_ordered_by_their_parameters() -> None:
    full, lora, head = ("full", "", 10**6), ("lora", "r=8, q+v", 10**4), ("head_only", "", 10)
    scores = {full: noisy(0.90, 0), head: noisy(0.6, 1), lora: noisy(0.899, 2)}
    (line,) = answer.methods(runs_of(scores))
    assert line.startswith(
        "reviews (minilm): the method with the fewest trained parameters that is enough is LoRA (r=8, q+v), at most a "
        "point below the best (full fine-tuning on validation data; -0.1 ±"
    )
    assert "; the head alone is worse (-30.0 ± " in line


def test_weight_types_of_one_budget() -> None:
    parts = []
    for name, mean, shift in (("q+v", 0.9, 0), ("q", 0.7, 1), ("v", 0.899, 2)):
        parts.append(runs_of({4: noisy(mean, shift)}, weight_types=name, settings=f"r=4, {name}"))
    wild = [0.99, 0.70, 0.95, 0.80, 0.85]
    parts.append(runs_of({4: wild}, weight_types="o", settings="r=4, o"))
    (line,) = answer.weight_types(pd.concat(parts, ignore_index=True), weight_sets.order)
    assert line == (
        "reviews (minilm), LoRA with 1,000 parameters: the best set of weights on validation data is q+v (n = 1,000 "
        "test rows, 5 seeds); worse on test data: q; at most a point below it: v; undecided: o: "
        "add ARGS='seed=0,1,2,3,4,5,6,7,8,9'."
    )


def test_answers_stand_above_the_tables(tmp_path: Path) -> None:
    path, runs = tmp_path / "table.md", runs_of({1: [0.5], 8: [0.6]})
    table_md.write(path, "# Title\n\n> no answer, a quote of the report\n\nText.\n", runs, ["one", "two"])
    assert path.read_text() == (
        "# Title\n\n> one\n>\n> two\n\nTest rows: reviews 1,000.\n\n> no answer, a quote of the report\n\nText.\n"
    )
    assert table_md.read_answers(path) == ["one", "two"]
    table_md.write(path, "# Title\n\nText.\n", runs.assign(test_rows=None))
    assert path.read_text() == "# Title\n\nText.\n"
    assert table_md.read_answers(path) == []


def test_rows_of_several_models() -> None:
    runs = pd.concat([runs_of({1: [0.5]}), runs_of({1: [0.5]}, model="smollm2", test_rows=160)], ignore_index=True)
    assert table_md.test_rows(runs) == "Test rows: reviews 1,000 (minilm), 160 (smollm2)."


@pytest.mark.parametrize("seeds", [5, 10, 19])
def test_advice_asks_for_more_seeds_than_there_are(seeds: int) -> None:
    scores = {r: [0.7 + 0.1 * (-1) ** (seed + r) for seed in range(seeds)] for r in (1, 2)}
    (line,) = answer.ranks(runs_of(scores, validation={1: 0.5, 2: 0.6}))
    asked = line.partition("seed=")[2].partition("'")[0].split(",")
    assert asked == [str(seed) for seed in range(len(asked))] and len(asked) > seeds
