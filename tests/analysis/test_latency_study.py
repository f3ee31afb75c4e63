import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import study
from analysis.kit import tables
from analysis.studies.latency import study as latency
from experiments.measure.schemas import TRIALS
from lora.config import InputError

STUDY = "latency"
FACTORS = {
    ("base", 0): 1.0, ("control", 0): 1.0, ("lora_merged", 0): 1.0, ("lora_unmerged", 0): 1.04,
    ("adapter_h", 10): 1.06, ("adapter_h", 250): 1.3, ("adapter_l", 10): 1.03, ("adapter_l", 250): 1.2,
}  # fmt: skip
ADDED = {"adapter_h": 98_000, "adapter_l": 49_000}  # parameters for each dimension of the bottleneck
CELLS = ((1, 128), (2, 128), (1, 512), (16, 256))


def make_trials(noise: float = 0.0, model: str = "gpt2-medium", rounds: int = 6) -> pd.DataFrame:
    """Rounds on a machine that slows down, and is at last ten times slower than at first."""
    random = np.random.default_rng(0)
    rows = [
        (model, batch, length, name, m, m * ADDED.get(name, 0), index,
         batch * length * 1e-3 * 10 ** (index / rounds) * factor * (1 + noise * random.standard_normal()))
        for batch, length in CELLS for index in range(rounds) for (name, m), factor in FACTORS.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=TRIALS.names)


@pytest.fixture
def store(study_dir: Path) -> Callable[..., None]:
    """Writes the measurement's two files."""

    def write(trials: pd.DataFrame, **machine: Any) -> None:
        trials.to_csv(study_dir / "trials.csv", index=False)
        facts = {"processor": "Quick 9000", "precision": "bf16", "threads": 2, "torch": "2.13", "left_out": []}
        (study_dir / "machine.json").write_text(json.dumps(facts | machine))

    return write


def test_slow_downs_are_paired_so_that_a_drifting_machine_does_not_matter() -> None:
    cells = latency.compare(make_trials())
    assert len(cells) == len(CELLS) * len(FACTORS)
    expected = [FACTORS[who] - 1 for who in zip(cells["contender"], cells["bottleneck"], strict=True)]
    for column in ("slowdown", "slowdown_median"):
        np.testing.assert_allclose(cells[column], expected, atol=1e-9)
    np.testing.assert_allclose(cells["slowdown_interval"], 0, atol=1e-9)
    assert (cells["q1"] < cells["median"]).all() and (cells["median"] < cells["q3"]).all()


def test_statistics_of_a_cell_are_scipys() -> None:
    trials = make_trials(noise=0.1)
    cells = latency.compare(trials).set_index([*latency.CELL, *latency.WHO])
    cell = trials[(trials["batch"] == 2) & (trials["length"] == 128)]
    own, base = (cell[cell["contender"] == name]["seconds"].to_numpy() for name in ("lora_merged", "base"))
    row = cells.loc[("gpt2-medium", 2, 128, "lora_merged", 0)]
    assert row["mean"] == pytest.approx(own.mean()) and row["std"] == pytest.approx(own.std(ddof=1))
    ratios = own / base - 1
    low, high = stats.t.interval(0.95, len(ratios) - 1, loc=ratios.mean(), scale=stats.sem(ratios))
    assert row["slowdown"] == pytest.approx((low + high) / 2)
    assert row["slowdown_interval"] == pytest.approx((high - low) / 2)
    assert row["slowdown_median"] == pytest.approx(np.median(ratios))


def test_table_1_has_the_papers_numbers_beside_ours_of_the_nearest_size() -> None:
    table = latency.table_1(latency.compare(make_trials())).set_index(["source", "method"])
    big, middle, small = table.columns
    assert table.loc[(latency.PAPER, "adapter_h"), small] == "25.8 ± 2.2 (+30.3%)"
    assert table.loc[(latency.PAPER, "base"), big] == "1449.4 ± 0.8"
    ours = "ours, gpt2-medium"
    assert table.loc[(ours, "adapter_l"), middle].endswith("(+20.0%, m = 250, 12.2M)")
    assert table.loc[(ours, "adapter_h"), small].endswith("(+30.0%, m = 250, 24.5M)")
    assert table.loc[(ours, "lora_merged"), small].endswith("(+0.0%)")
    assert table.loc[ours, big].isna().all()  # not measured


def test_verdicts_count_the_intervals_that_hold_zero() -> None:
    lines = {line.split(":")[0]: line for line in latency.verdicts(latency.compare(make_trials(noise=0.002)))}
    assert "in 0 of 4 cells" in lines["- lora_unmerged"] and "+3.9 ±" in lines["- lora_unmerged"]
    assert "in 0 of 4 cells" not in lines["- lora_merged"]
    assert "m = 10," in lines["- adapter_h"].partition(" to ")[0]
    assert "m = 250," in lines["- adapter_h"].partition(" to ")[2]


def test_build_writes_tables_and_a_figure_for_each_model(
    store: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    both = pd.concat([make_trials(0.01), make_trials(0.01, "own/model")])
    store(both, left_out=[["gpt2-medium", 32, 512]])
    paths = study.run_study(study_dir, runs_dir)[:-1]
    names = ["table.csv", "table.md", "fig5_gpt2-medium.png", "fig5_own_model.png", "lora.png"]
    assert [path.name for path in paths] == names
    assert all(path.stat().st_size > 10_000 for path in paths if path.suffix == ".png")
    text = (study_dir / "table.md").read_text()
    assert "processor: Quick 9000" in text and "precision: bf16" in text
    assert "Left out, because a pass takes too long (batch × length): 32 × 512." in text
    table = pd.read_csv(study_dir / "table.csv")
    assert table["source"].value_counts().to_dict() == {"ours": 2 * len(CELLS) * len(FACTORS), "paper": 9}
    assert {"slowdown", "slowdown_interval", "slowdown_median", "q1", "q3", "std"} <= set(table.columns)


def test_a_single_round_has_no_interval(store: Callable[..., None], study_dir: Path, runs_dir: Path) -> None:
    store(make_trials(rounds=1))
    study.run_study(study_dir, runs_dir)
    assert "nan" not in (study_dir / "table.md").read_text()


@pytest.mark.parametrize("missing", latency.STUDY.reads)
def test_missing_measurement_names_the_command(
    store: Callable[..., None], study_dir: Path, runs_dir: Path, missing: str
) -> None:
    store(make_trials())
    (study_dir / missing).unlink()
    with pytest.raises(InputError, match=rf"no {missing}; `make latency PRESET=quick`"):
        study.run_study(study_dir, runs_dir)


@pytest.mark.parametrize(
    "change",
    [
        lambda trials: trials[trials["contender"] != "base"],
        lambda trials: trials.drop(index=3),
        lambda trials: pd.concat([trials, trials.iloc[:1]]),
        lambda trials: trials.iloc[:0],
        lambda trials: trials.drop(columns="seconds"),
    ],
)
def test_damaged_trials_are_one_clear_line(
    store: Callable[..., None], study_dir: Path, runs_dir: Path, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    store(change(make_trials()))
    with pytest.raises(InputError) as caught:
        study.run_study(study_dir, runs_dir)
    assert tables.make_command(study_dir) in str(caught.value) and "\n" not in str(caught.value)
