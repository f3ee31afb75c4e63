from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.kit import tables
from analysis.studies.alpha import rates as alpha_rates
from analysis.study import run_study
from lora.config import InputError

STUDY = "alpha"
GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FIXED = 3e-3
Cell = Callable[..., None]


def peak(ratio: float) -> float:
    """The best rate if alpha / r is a learning rate."""
    return 3e-3 / ratio


@pytest.fixture
def make_cell(make_run: Callable[..., str]) -> Cell:
    """Runs of one r and alpha: tuning at seed 0, and the study's at FIXED and at the best rate."""

    def make(r: int, ratio: float, seeds: tuple[int, ...] = (0, 1, 2), best: float | None = None) -> None:
        method = {"name": "lora", "r": r, "alpha": ratio * r, "weight_types": "q+v"}

        def score(lr: float) -> float:
            return 0.8 - 0.1 * abs(np.log10(lr / (best or peak(ratio))))

        def store(lr: float, seed: int, role: str) -> None:
            value = score(lr)
            make_run(method=method, lr=lr, seed=seed, validation=value, test=value + 0.01 * seed, role=role)

        for lr in GRID:
            store(lr, 0, "tuning")
        for lr in {FIXED, max(GRID, key=score)}:
            for seed in seeds:
                store(lr, seed, "study")

    return make


def test_fixed_and_tuned_runs_are_told_apart(make_cell: Cell, study_dir: Path, runs_dir: Path) -> None:
    for r in (4, 64):
        for ratio in (0.1, 1, 10):
            make_cell(r, ratio)
    outputs = run_study(study_dir, runs_dir)
    assert {path.name for path in outputs} - {"provenance.json"} == {
        "runs.csv",
        "table.csv",
        "claim.csv",
        "table.md",
        "alpha.png",
    }
    assert all(path.stat().st_size for path in outputs)
    table = pd.read_csv(study_dir / "table.csv").set_index(["r", "alpha_over_r", "kind"])
    assert len(table) == 2 * 3 * 2
    assert (table["n"] == 3).all()
    assert set(table.xs("fixed", level="kind")["lr"]) == {FIXED}
    assert table.xs(4)["lr"].xs("tuned", level="kind").to_dict() == {0.1: 3e-2, 1.0: 3e-3, 10.0: 3e-4}
    means = table.xs(64)["mean"]
    assert [means[ratio, "fixed"] for ratio in (0.1, 1, 10)] == pytest.approx([0.71, 0.81, 0.71])
    assert means[0.1, "tuned"] == pytest.approx(0.81)


def test_the_claim_in_numbers(make_cell: Cell, study_dir: Path, runs_dir: Path) -> None:
    for ratio in (0.1, 1, 10):
        make_cell(4, ratio)
        make_cell(64, ratio, best=FIXED)  # the best rate does not care about alpha
    run_study(study_dir, runs_dir)
    claim = pd.read_csv(study_dir / "claim.csv").set_index("r")
    assert claim.loc[4, ["spread_fixed", "spread_tuned"]].tolist() == pytest.approx([0.1, 0], abs=1e-6)
    assert claim.loc[4, "slope"] == pytest.approx(-1)
    assert claim.loc[4, "slope_scatter"] == pytest.approx(0, abs=1e-6)
    assert claim.loc[4, ["noise_fixed", "noise_tuned"]].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert claim.loc[64, ["spread_fixed", "slope"]].tolist() == pytest.approx([0, 0], abs=1e-6)
    lines = [line for line in (study_dir / "table.md").read_text().splitlines() if line.startswith("- rotten")]
    assert "spread 10.0 [0.0] at the fixed rate 0.003, 0.0 [0.0] with it tuned" in lines[0]
    assert "**tuning the rate flattens the curve,**" in lines[0] and "**it falls, as claimed.**" in lines[0]
    assert "at the fixed rate already no more than noise" in lines[1] and "it cannot be told from 0" in lines[1]
    assert "| 0.03* " in (study_dir / "table.md").read_text()  # the edge of the grid


def test_a_rate_that_is_everybodys_best_is_not_taken_for_the_fixed_one(
    make_cell: Cell, study_dir: Path, runs_dir: Path
) -> None:
    for ratio in (1, 4):
        make_cell(8, ratio, best=1e-3)
    run_study(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv")
    assert table.groupby("kind")["lr"].unique().map(list).to_dict() == {"fixed": [FIXED], "tuned": [1e-3]}


def test_of_equal_rates_the_one_that_was_trained_is_the_tuned_one(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for ratio, chosen in ((1, 1e-2), (4, 1e-3)):
        method = {"name": "lora", "r": 8, "alpha": 8 * ratio, "weight_types": "q+v"}
        for lr in (1e-3, 1e-2):
            make_run(method=method, lr=lr, validation=0.8, role="tuning")
        make_run(method=method, lr=chosen, validation=0.8)
        make_run(method=method, lr=FIXED, validation=0.7)
    runs = tables.load_runs(study_dir, runs_dir)
    runs["alpha_over_r"] = runs["alpha"] / runs["r"]
    best = alpha_rates.best_rates(runs)
    assert best.set_index("alpha_over_r")["best_lr"].to_dict() == {1: 1e-2, 4: 1e-3}
    assert best["at_edge"].all()


def test_one_seed_without_tuning_says_what_it_cannot_say(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    for value in (1, 4, 16):
        make_run(method={"name": "lora", "r": 4, "alpha": value, "weight_types": "q+v"}, test=0.7 + value / 200)
    list_run(run_id="method.alpha=64", role="study", error="the loss is nan at step 3")
    run_study(study_dir, runs_dir)
    claim = pd.read_csv(study_dir / "claim.csv").iloc[0]
    assert claim["spread_fixed"] == pytest.approx(0.075)
    assert claim[["noise_fixed", "spread_tuned", "slope"]].isna().all()
    text = (study_dir / "table.md").read_text()
    assert "no run has a tuned rate, so that the claim is not tested" in text
    assert "`method.alpha=64` failed and is not in the results" in text


def test_a_failed_cell_does_not_change_which_rate_is_fixed(
    make_cell: Cell, make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_cell(4, 0.1)
    make_cell(4, 1)
    method = {"name": "lora", "r": 4, "alpha": 40, "weight_types": "q+v"}  # FIXED diverged here
    make_run(method=method, lr=3e-4, validation=0.8, role="study+tuning")
    make_run(method=method, lr=3e-4, validation=0.8, role="tuning")
    make_run(method=method, lr=3e-4, validation=0.8, role="study")
    run_study(study_dir, runs_dir)
    claim = pd.read_csv(study_dir / "claim.csv").iloc[0]
    assert (claim["fixed_lr"], claim["compared"]) == (FIXED, 2)


def test_noise_is_the_studentized_range_of_a_two_way_layout() -> None:
    values = np.array([[0.80, 0.82, 0.81], [0.79, 0.83, 0.80], [0.81, 0.82, 0.84], [0.80, 0.85, 0.82]])
    left = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
    expected = 4.896 * np.sqrt((left**2).sum() / 6 / 3)  # q(0.95; 4, 6) of Tukey's table
    assert alpha_rates.spread_by_chance(pd.DataFrame(values)) == pytest.approx(expected, rel=1e-3)
    shifted = pd.DataFrame(values + np.array([0, 0.1, -0.3]) + np.array([0, 0.1, 0.2, 0.3])[:, None])
    assert alpha_rates.spread_by_chance(shifted) == pytest.approx(expected, rel=1e-3)
    shifted.loc[1, 2] = np.nan  # a seed that one alpha lacks
    assert alpha_rates.spread_by_chance(shifted) == pytest.approx(
        alpha_rates.spread_by_chance(pd.DataFrame(values[:, :2])), rel=1e-6
    )
    assert np.isnan(alpha_rates.spread_by_chance(pd.DataFrame(values[:, :1])))
    assert np.isnan(alpha_rates.spread_by_chance(pd.DataFrame(values[:1])))


def test_slope_moves_by_no_more_than_the_grid_allows() -> None:
    best = pd.DataFrame({"alpha_over_r": [0.25, 1, 4, 16], "best_lr": [1e-2, 3e-3, 3e-3, 1e-3], "half_step": 0.8})
    middle, _, grid = alpha_rates.slope(best)
    rng = np.random.default_rng(0)
    moved = [
        alpha_rates.slope(best.assign(best_lr=best["best_lr"] * np.exp2(rng.choice([-0.8, 0.8], 4))))[0]
        for _ in range(60)
    ]
    assert np.abs(np.array(moved) - middle).max() == pytest.approx(grid)
    assert np.isnan(alpha_rates.slope(best[:1])).all()
    assert np.isnan(alpha_rates.slope(best[:2])[1])


def test_runs_that_are_neither_are_refused(
    make_cell: Cell, make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for ratio in (0.1, 1):
        make_cell(4, ratio)
    make_run(method={"name": "lora", "r": 4, "alpha": 4, "weight_types": "q+v"}, lr=7e-3)
    with pytest.raises(InputError, match=r"has lr 0.007, which is neither the common one \(0.003\) nor the best"):
        run_study(study_dir, runs_dir)


def test_two_runs_of_one_seed_and_other_methods_are_refused(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_run(method={"name": "lora", "r": 4, "alpha": 4, "weight_types": "q+v"})
    make_run(method={"name": "lora", "r": 4, "alpha": 4, "weight_types": "q+v", "dropout": 0.1})
    with pytest.raises(InputError, match="same seed with different settings"):
        run_study(study_dir, runs_dir)
    make_run(method={"name": "bitfit"})
    with pytest.raises(InputError, match="runs that have no r and alpha"):
        run_study(study_dir, runs_dir)


def test_tuning_runs_alone_are_no_study(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(role="tuning")
    with pytest.raises(InputError, match="has no finished run; `make"):
        run_study(study_dir, runs_dir)
