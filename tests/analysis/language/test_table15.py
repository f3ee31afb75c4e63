from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.studies import table15

STUDY = "table15"
LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16, "weight_types": "q+v"}
PREFIX = {"name": "prefix_embed", "l_i": 8}
SEEDS = (0.000, 0.010, 0.021)
# l_p -> (test, validation loss): the loss says 32 is the best, the test data 8; the largest is worse than both.
PREFIXES = {8: (0.47, 0.60), 32: (0.45, 0.50), 128: (0.30, 0.90)}


@pytest.fixture
def points(store: Callable[..., str]) -> None:
    for seed, noise in enumerate(SEEDS):
        for l_p, (score, loss) in PREFIXES.items():
            odd = 0.001 * (seed == 1 and l_p == 128)
            shared = {"seed": seed, "params": 576 * (l_p + 8), "validation": -loss - odd}
            store(PREFIX | {"l_p": l_p}, score + noise + odd, "text2sql", **shared)
        for r, validation in ((1, 0.6), (8, 0.7)):
            store(LORA | {"r": r}, 0.5 + noise, "text2sql", seed, validation=-1 / r)
            store(LORA | {"r": r}, 0.8 + noise, seed=seed, validation=validation)
        store(LORA | {"name": "lora+prefix_embed", "l_p": 8, "l_i": 4}, 0.52 + noise, "text2sql", seed, params=467_000)
        store({"name": "full"}, 0.5 + noise, "text2sql", seed, lr=1e-4)


def test_points_and_falls_beside_the_papers(points: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = table15.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "falls.csv", "table.md", "table15.png", "samples.md", "samples.csv"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)

    table = pd.read_csv(study_dir / "table.csv")
    ours = table[(table["source"] == "ours") & (table["task"] == "text2sql") & (table["metric"] != "loss")]
    ours = ours.set_index(["line", "settings"])
    assert ours.loc["prefix_embed", "size"].tolist() == [576 * 16, 576 * 40, 576 * 136]
    assert ours.loc[("lora+prefix_embed", "r=8, q+v, l_p=8, l_i=4"), "mean"] == pytest.approx(
        0.52 + sum(SEEDS) / 3, rel=1e-4
    )
    paper = table[table["source"] == "paper"].set_index(["task", "line", "settings"])
    assert paper.loc[("WikiSQL", "lora+prefix_embed", "rq=rv=64,lp=8,li=4"), ["size", "mean"]].tolist() == [
        302.1e6,
        0.762,
    ]

    every = pd.read_csv(study_dir / "falls.csv").set_index(["task", "line"])
    falls = every[every["metric"] != "loss"]
    found = falls.loc[("text2sql", "prefix_embed")]
    of_loss = every[every["metric"] == "loss"].loc[("text2sql", "prefix_embed")]
    assert of_loss[["best", "largest"]].tolist() == found[["best", "largest"]].tolist()
    assert of_loss["difference"] == pytest.approx(-found["difference"], rel=1e-4)
    assert found[["best", "largest"]].tolist() == ["l_p=32, l_i=8", "l_p=128, l_i=8"]  # the loss chooses
    pairs = np.array([-0.15, -0.149, -0.15])
    assert found["difference"] == pytest.approx(pairs.mean(), rel=1e-4)
    assert found["p"] == pytest.approx(stats.ttest_1samp(pairs, 0).pvalue, rel=1e-3)
    assert falls.loc[("text2sql", "lora q+v"), "best"] == "r=8, q+v"
    assert falls.loc[("text_rotten_tomatoes", "lora q+v"), "best"] == "r=8, q+v"
    assert ("text2sql", "lora+prefix_embed") not in falls.index  # one size
    assert falls.loc[("WikiSQL", "lora+prefix_embed"), ["best", "largest"]].nunique() == 1

    text = (study_dir / "table.md").read_text()
    assert "- text2sql (smollm2): best test loss 0.470 ± 0.026 (3), lora+prefix_embed (r=8, q+v, l_p=8, l_i=4)" in text
    assert "- text2sql (smollm2): best logical_form 53.0 ± 2.6 (3), lora+prefix_embed (r=8, q+v, l_p=8, l_i=4)" in text
    rows = {tuple(cell.strip() for cell in line.split("|")[2:4]): line for line in text.splitlines() if line[:1] == "|"}
    for metric in ("loss", "logical_form"):
        assert "yes, it falls" in rows[f"text2sql {metric}", "prefix_embed"]
        assert "the largest is the best" in rows[f"text2sql {metric}", "lora q+v"]
    assert "-7.2" in rows["WikiSQL", "prefix_embed"]
    assert "| 9,216 " in rows["prefix_embed", "l_p=8, l_i=8"]
    assert "| 3.96 " in rows["prefix_embed", "l_p=8, l_i=8"]
    assert "None of them was tuned in this study." in text


def test_one_seed_is_no_test(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    store(LORA | {"r": 1}, 0.80, validation=0.82)
    store(LORA, 0.79, validation=0.80)
    table15.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "-1.0 (1 pair)" in text
    assert "no test: it takes two seeds that differ" in text
    assert "One seed a method: there is no interval and no test." in text


def test_rates_that_were_tuned_are_stored(store: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for lr, loss in ((1e-4, 0.7), (1e-3, 0.5)):
        store(LORA, 0.5, "text2sql", lr=lr, validation=-loss, role="tuning")
    store(LORA, 0.5, "text2sql", lr=1e-3, validation=-0.5)
    assert "learning_rates.csv" in {path.name for path in table15.STUDY.build(study_dir, runs_dir)}
    assert "2 tuning runs at 1 of these points" in (study_dir / "table.md").read_text()
