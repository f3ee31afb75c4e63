from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.kit.sentences import told
from analysis.studies.weight_types import report as weight_report
from analysis.studies.weight_types import sets as weight_sets
from analysis.studies.weight_types import study as weight_types
from lora.config import InputError

STUDY = "weight_types"
HEAD = 66
LAYERS, D, INNER = 2, 32, 128  # one attention type costs 128 parameters a rank, up or down 320
ATTENTION = {"q": 4, "k": 4, "v": 4, "o": 4, "q+k": 2, "q+v": 2, "q+k+v+o": 1}  # ranks at 512 parameters
FORWARD = {"up": 8, "down": 8, "up+down": 4}  # at 2560
EVERY = "q+k+v+o+up+down"  # 1152 a rank: r = 2 misses 2560 by -10 %
SEEDS = (0.000, 0.010, 0.021)
WOBBLE = (0.0, 0.002, -0.003)

Train = Callable[..., str]


def shape(weight_type: str) -> tuple[int, int]:
    return {"up": (INNER, D), "down": (D, INNER)}.get(weight_type, (D, D))


@pytest.fixture
def train(make_run: Callable[..., str]) -> Train:
    """make_run, with as many trained parameters as A and B have, and the head."""

    def make(weight_types: str = "q+v", r: int = 2, head: int = HEAD, **settings: object) -> str:
        lora = sum(LAYERS * r * sum(shape(name)) for name in weight_types.split("+"))
        about = {"trainable_params": lora + head, "head_params": head}
        return make_run(r=r, weight_types=weight_types, **about, **settings)

    return make


# How a set fares at 2560 parameters, beside q+v: k is clearly worse, up+down clearly better.
EFFECTS = {"k": -0.06, "up+down": 0.04}


@pytest.fixture
def grid(train: Train) -> None:
    for seed, shift in enumerate(SEEDS):
        for weights, r in ATTENTION.items():
            wobble = WOBBLE[seed] * (1 + sorted(ATTENTION).index(weights)) / 5 if weights != "q+v" else 0
            train(weights, r, seed=seed, test=0.75 + shift + wobble)
            train(weights, 5 * r, seed=seed, test=0.8 + shift + wobble + EFFECTS.get(weights, 0))
        for weights, r in FORWARD.items():
            train(weights, r, seed=seed, test=0.8 + shift + WOBBLE[seed] / 3 + EFFECTS.get(weights, 0))
        train(EVERY, 2, seed=seed, test=0.81 + shift - WOBBLE[seed])


def test_the_tables_of_a_grid(grid: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = weight_types.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "differences.csv", "table.md", "weight_types.png"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)

    runs = pd.read_csv(study_dir / "runs.csv")
    assert set(runs["budget"]) == {512, 2560}
    assert set(runs.loc[runs["weight_types"] == EVERY, "lora_params"]) == {2304}

    table = pd.read_csv(study_dir / "table.csv")
    ours = table[table["source"] == "ours"].set_index(["budget", "weight_types"])
    assert list(ours.index) == [
        *((512, name) for name in ("q", "k", "v", "o", "q+k", "q+v", "q+k+v+o")),
        *((2560, name) for name in ("q", "k", "v", "o", "q+k", "q+v", "q+k+v+o", "up", "down", "up+down", EVERY)),
    ]
    assert ours["n"].eq(3).all()
    assert ours.loc[(2560, "q+v"), ["r", "lora_params", "deviation"]].tolist() == [10, 2560, 0]
    assert ours.loc[(2560, EVERY), ["r", "lora_params"]].tolist() == [2, 2304]
    assert ours.loc[(2560, EVERY), "deviation"] == pytest.approx(-0.1)
    values = np.array([0.8 + shift for shift in SEEDS])
    assert ours.loc[(2560, "q+v"), "mean"] == pytest.approx(values.mean())
    assert ours.loc[(2560, "q+v"), "interval"] == pytest.approx(4.302653 * values.std(ddof=1) / 3**0.5, rel=1e-5)

    paper = table[table["source"] == "paper"].set_index(["task", "weight_types"])
    assert len(paper) == 14 and set(paper["budget"]) == {18_000_000}
    assert paper.loc[("WikiSQL", "q+k+v+o"), ["r", "mean"]].tolist() == [2, 0.737]
    assert paper.loc[("MNLI-m", "q"), ["r", "mean"]].tolist() == [8, 0.91]


def test_tests_are_paired_by_seed_and_corrected_within_a_budget(grid: None, study_dir: Path, runs_dir: Path) -> None:
    weight_types.STUDY.build(study_dir, runs_dir)
    found = pd.read_csv(study_dir / "differences.csv")
    against = found[found["reference"] == "q+v"].set_index(["budget", "weight_types"])
    assert len(against.loc[512]) == 6 and len(against.loc[2560]) == 10
    scores = pd.read_csv(study_dir / "runs.csv").query("split == 'test' and metric == 'accuracy' and budget == 2560")
    wide = scores.pivot(index="seed", columns="weight_types", values="value")
    raw = {name: stats.ttest_rel(wide[name], wide["q+v"]).pvalue for name in wide if name != "q+v"}
    assert against.loc[2560, "p"].to_dict() == pytest.approx(raw, rel=1e-4)
    ordered = sorted(raw, key=raw.__getitem__)
    holm = np.minimum(np.maximum.accumulate([raw[name] * (10 - i) for i, name in enumerate(ordered)]), 1)
    assert against.loc[2560, "p_holm"][ordered].tolist() == pytest.approx(holm, rel=1e-4)
    assert against.loc[(2560, "k"), "difference"] < -0.05 and against.loc[(2560, "k"), "p_holm"] < 0.05

    contrast = found[found["reference"] == weight_sets.MEAN_OF_SINGLE].set_index("budget")
    assert contrast["weight_types"].tolist() == ["q+k+v+o"] * 2
    single = wide[["q", "k", "v", "o"]].mean(axis=1)
    test = stats.ttest_rel(wide["q+k+v+o"], single)
    assert contrast.loc[2560, ["difference", "p"]].tolist() == pytest.approx(
        [(wide["q+k+v+o"] - single).mean(), test.pvalue], rel=1e-4
    )
    assert (contrast["p_holm"] >= contrast["p"]).all()


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_report_says_what_the_tests_establish(grid: None, study_dir: Path, runs_dir: Path) -> None:
    weight_types.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "q+v and q+k+v+o are highest on WikiSQL, q+k+v+o is highest on MNLI-m" in " ".join(text.split())
    assert "2,560 parameters: the best mean of 11 sets is up+down 85.0" in text
    assert "Better than q+v: up+down; worse: k." in text
    assert "Corrected for all 16 tests of another set against q+v, 1 find the other better" in text
    assert "(up+down on rotten_tomatoes at 2,560)" in text and "(k on rotten_tomatoes at 2,560)" in text
    assert "**That q+v is the best use of a budget does not hold here.**" in text
    assert "the update's factor alpha / r is between 0.8 and 16" in text
    rows = rows_of(text)
    assert any(row[:2] == ["up", "–"] and "(3)" in row[2] and row[3:] == ["–", "–"] for row in rows)
    assert any(row[0] == "q" and row[3:] == ["70.4 (r = 8)", "91.0 (r = 8)"] for row in rows)
    assert [EVERY, "–", "r = 2: 2,304 (-10.0%)"] in rows
    assert any(row[0] == "k" and row[2].startswith("-6.0 ±") and row[2].endswith("*") for row in rows)
    assert "Learning rates" not in text


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (0, 2, "is the best use of a budget holds here"),
        (0, 1, "No set is established to be better than q+v; that it is the best of all is not decided"),
        (0, 0, "is not decided here"),
        (1, 1, "does not hold here"),
    ],
)
def test_every_verdict_comes_out(better: int, worse: int, verdict: str) -> None:
    sizes = [0.1] * better + [-0.1] * worse + [0.0] * (2 - better - worse)
    tests = pd.DataFrame({"difference": sizes, "p_holm": [0.01 if size else 0.9 for size in sizes]})
    found = weight_report.claim(tests, *told(tests)[:2])
    assert verdict in found


def test_one_seed_is_no_test_and_no_reference_no_comparison(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train("q", 4, test=0.7)
    weight_types.STUDY.build(study_dir, runs_dir)
    assert "q+v has no run beside another set: nothing is compared" in (study_dir / "table.md").read_text()
    train("q+v", 2, test=0.8)
    weight_types.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "is not tested" in text and "+q" not in "".join(row[0] for row in rows_of(text))
    assert ["q", "-10.0"] in rows_of(text)
    assert "q+v has the best mean in 1 of 1" in text


def test_learning_rates_are_told_by_set(train: Train, study_dir: Path, runs_dir: Path) -> None:
    for lr, validation in ((1e-3, 0.7), (3e-3, 0.8), (1e-2, 0.6)):
        train("q+v", 2, lr=lr, validation=validation, role="tuning")
        train("q", 4, lr=lr, validation=validation - lr, role="tuning")
    for weights, r in (("q+v", 2), ("q", 4)):
        for seed in (0, 1):
            train(weights, r, lr=3e-3, validation=0.8, seed=seed)
    outputs = weight_types.STUDY.build(study_dir, runs_dir)
    assert "learning_rates.csv" in {path.name for path in outputs}
    rates = pd.read_csv(study_dir / "learning_rates.csv")
    assert set(zip(rates["weight_types"], rates["lr"], strict=True)) == {
        (weights, lr) for weights in ("q", "q+v") for lr in (1e-3, 3e-3, 1e-2)
    }
    rows = rows_of((study_dir / "table.md").read_text())
    assert ["r=2, q+v", "70.0", "**80.0**", "60.0", "no"] in rows


@pytest.mark.parametrize(
    ("counts", "budgets"),
    [
        # most sets have a number: it is the budget of those near it
        ({"q": 100, "v": 100, "up": 110, "down": 110, "up+down": 110}, [110] * 5),
        ({"q": 100, "v": 100, "q+v": 100, "up": 126, "down": 90}, [100, 100, 100, 126, 100]),
        ({"q": 100}, [100]),
    ],
)
def test_budgets_are_the_numbers_that_most_sets_have(counts: dict[str, int], budgets: list[int]) -> None:
    runs = pd.DataFrame({"model": "m", "task": "t", "weight_types": counts.keys(), "lora_params": counts.values()})
    found = weight_sets.with_budgets(runs.iloc[::-1])
    assert found["budget"].tolist() == budgets[::-1]
    assert found["deviation"].tolist() == pytest.approx(
        [count / budget - 1 for count, budget in zip(list(counts.values())[::-1], budgets[::-1], strict=True)]
    )


def test_parameters_are_counted_from_what_was_trained(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train("q+v", 2, head=0)
    train("q+up", 3, head=10**6)  # a task's head does not count
    weight_types.STUDY.build(study_dir, runs_dir)
    runs = pd.read_csv(study_dir / "runs.csv").drop_duplicates("run_id").set_index("weight_types")
    assert runs["lora_params"].to_dict() == {"q+v": 512, "q+up": LAYERS * 3 * (2 * D + D + INNER)}


def test_two_runs_of_one_seed_are_refused(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train("q+v", 2)
    train("q+v", 2, lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        weight_types.STUDY.build(study_dir, runs_dir)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "full"},
        {"name": "lora", "r": 2, "alpha": 16, "weight_types": "", "modules": ["*.key"]},
        {"name": "lora", "r": {"q": 1, "v": 3}, "alpha": 16, "weight_types": "q+v"},
    ],
)
def test_runs_of_something_else_are_refused(
    method: dict[str, Any], train: Train, make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    train("q+v", 2)
    make_run(method=method)
    with pytest.raises(InputError, match="is not of LoRA on weight types with one rank") as raised:
        weight_types.STUDY.build(study_dir, runs_dir)
    assert "\n" not in str(raised.value)


def test_a_run_that_does_not_say_how_large_its_head_is(train: Train, study_dir: Path, runs_dir: Path) -> None:
    run_id = train("q+v", 2)
    path = runs_dir / run_id / "metrics.json"
    path.write_text(path.read_text().replace("head_params", "heads"))
    message = rf"is damaged .*; delete .*{run_id}, `make weight-types PRESET=quick` trains it again"
    with pytest.raises(InputError, match=message):
        weight_types.STUDY.build(study_dir, runs_dir)


def test_failed_runs_are_named(train: Train, make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    train("q+v", 2)
    make_run(weight_types="q", r=4, error="the loss is nan")
    weight_types.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "## Failed runs" in text and "lora (r=4, q) on rotten_tomatoes" in text


def test_sets_come_in_the_same_order_everywhere() -> None:
    names = ["up+gate+down", "q+k+v+o+up", "down", "gate", "up", "q+k+v+o", "q+v", "q+k", "v+o", "o", "v", "k", "q"]
    expected = ["q", "k", "v", "o", "q+k", "q+v", "v+o", "q+k+v+o", "up", "gate", "down", "up+gate+down", "q+k+v+o+up"]
    assert sorted(names, key=weight_sets.order) == expected
