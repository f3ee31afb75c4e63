from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.kit import tables, tuning
from lora.config import InputError

STUDY = "compare_methods"


def test_good_region_is_interpolated_over_log_lr() -> None:
    # Within 0.02 of 0.90: to the left 0.80 -> 0.90, a fifth of the decade; to the right 0.90 -> 0.86, half of it.
    region = tuning.good_region([1e-4, 1e-3, 1e-2], [0.80, 0.90, 0.86], best=1, tolerance=0.02)
    assert (np.log10(region.low), np.log10(region.high)) == pytest.approx((-3.2, -2.5), abs=1e-5)
    assert region.bounded
    assert region.decades == pytest.approx(0.7, abs=1e-5)


def test_good_region_is_around_the_best_alone_and_knows_its_edges() -> None:
    region = tuning.good_region([1e-5, 1e-4, 1e-3, 1e-2], [0.90, 0.50, 0.90, 0.895], best=2, tolerance=0.01)
    assert np.log10(region.low) == pytest.approx(-3.025, abs=1e-4)
    assert (region.high, region.bounded) == (pytest.approx(1e-2), False)


def test_a_rate_that_did_not_train_ends_the_good_region_at_its_neighbour() -> None:
    region = tuning.good_region([1e-4, 1e-3, 1e-2], [0.5, 0.9, np.nan], best=1, tolerance=0.01)
    assert region.high == pytest.approx(1e-3)
    assert region.bounded
    assert tuning.good_region([1e-3], [0.9], best=0, tolerance=0.01).decades == 0


def test_rates_know_what_failed_and_what_was_chosen(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for lr, validation in ((1e-4, 0.7), (1e-3, 0.8)):
        make_run(lr=lr, validation=validation, role="tuning")
        make_run(lr=lr, validation=validation, role="tuning", method={"name": "bitfit"})
    make_run(lr=1e-2, role="tuning", error="loss is nan")
    make_run(lr=1e-3, seed=1, role="study", error="killed")
    make_run(lr=1e-3, seed=0, validation=0.8)
    grid = tuning.rates(tables.load_runs(study_dir, runs_dir), tables.load_failed(study_dir, runs_dir))
    lora = grid[grid["label"] == "lora"]
    assert lora["lr"].tolist() == [1e-4, 1e-3, 1e-2]
    assert lora["value"].tolist() == pytest.approx([0.7, 0.8, np.nan], nan_ok=True)
    assert lora["chosen"].tolist() == [False, True, False]
    assert list(dict.fromkeys(grid["label"])) == ["bitfit", "lora"]

    found = tuning.outcomes(grid).set_index("label")
    assert found["tried"].to_dict() == {"bitfit": 2, "lora": 3}
    assert found["failed"].to_dict() == {"bitfit": 0, "lora": 1}
    assert found["at_edge"].to_dict() == {"bitfit": True, "lora": False}
    assert found.loc["lora", ["best_lr", "isolated"]].tolist() == [1e-3, True]


def test_a_grid_that_grew_is_longer_than_most_and_one_that_was_stopped_does_not_count(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for name, tried in (("full", 3), ("bitfit", 3), ("adapter_h", 5), ("lora", 1), ("dora", 1)):
        for step in range(tried):
            make_run(method={"name": name}, lr=10.0 ** (step - 5), role="tuning")
        if tried > 1:
            make_run(method={"name": name}, lr=1e-4)
    found = tuning.outcomes(
        tuning.rates(tables.load_runs(study_dir, runs_dir), tables.load_failed(study_dir, runs_dir))
    )
    grown = found.set_index("label")["beyond_grid"].to_dict()
    assert grown == {"full": 0, "bitfit": 0, "adapter_h": 2, "lora": 0, "dora": 0}


def test_of_equals_the_chosen_rate_is_the_best_else_the_middle(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for lr in (1e-4, 1e-3, 1e-2):
        make_run(lr=lr, validation=0.8, role="tuning")
        make_run(lr=lr, validation=0.8, role="tuning", method={"name": "full"})
    make_run(lr=1e-2, validation=0.8)
    found = tuning.outcomes(
        tuning.rates(tables.load_runs(study_dir, runs_dir), tables.load_failed(study_dir, runs_dir))
    )
    assert found.set_index("label")["best_lr"].to_dict() == {"full": 1e-3, "lora": 1e-2}
    assert not found["isolated"].any()


def test_a_study_without_tuning_has_no_rates(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run()
    make_run(seed=1, error="killed")
    assert tuning.rates(tables.load_runs(study_dir, runs_dir), tables.load_failed(study_dir, runs_dir)).empty


def test_means_over_different_rates_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(lr=1e-3, seed=0)
    make_run(lr=2e-3, seed=1)
    runs = tables.load_runs(study_dir, runs_dir)
    test = runs[runs["main"] & (runs["split"] == "test")]
    with pytest.raises(
        InputError, match=r"lora \(r=8, q\+v\) on rotten_tomatoes with different learning rates \(0.001, 0.002"
    ):
        tuning.check(test, study_dir)
    with pytest.raises(InputError, match="no finished run to compare"):
        tuning.check(pd.DataFrame(columns=test.columns), study_dir)
