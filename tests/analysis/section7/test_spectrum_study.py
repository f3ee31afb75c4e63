"""Ranks, intruders and overlaps from made-up runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_models import LAYERS

from analysis.kit import updates
from analysis.maths.spectrum import effective_rank, stable_rank
from analysis.studies.spectrum import report
from analysis.study import run_study
from analysis.weights.updates import read_run
from lora.config import InputError

STUDY = "spectrum"
TYPES = 6  # of BERT
Train = Callable[..., str]


@pytest.fixture
def runs(train: Train) -> dict[tuple[int, int], str]:
    """(r, seed) -> run_id; r = 0 is full fine-tuning, and r = 1 is 40 times W's top direction."""
    found = {}
    for seed in (0, 1):
        found[1, seed] = train(r=1, seed=seed, of_w=40.0)
        found[4, seed] = train(r=4, seed=seed)
        found[0, seed] = train(seed=seed, full=True)
    return found


def test_every_file_is_written_and_right(runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path) -> None:
    outputs = {path.name for path in run_study(study_dir, runs_dir)}
    figures = {f"{name}.png" for name in ("spectra", "ranks", "intruders", "overlap")}
    tables = {f"{name}.csv" for name in ("runs", "spectra", "ranks", "angles", "overlap", "table")}
    assert outputs == figures | tables | {"table.md", "provenance.json"}
    assert all((study_dir / name).stat().st_size > 5000 for name in figures)

    ranks = pd.read_csv(study_dir / "ranks.csv")
    assert len(ranks) == 2 * LAYERS * (2 + 2 + TYPES)
    for (r, seed), run_id in runs.items():
        for site, update in read_run(runs_dir / run_id).items():
            (row,) = ranks[
                (ranks["run_id"] == run_id)
                & (ranks["layer"] == int(site.layer))
                & (ranks["weight_type"] == site.weight_type)
            ].to_dict("records")
            S = update.svd().S
            assert row["stable_rank"] == pytest.approx(stable_rank(S), rel=1e-3)
            assert row["effective_rank"] == pytest.approx(effective_rank(S), rel=1e-3)
            assert row["norm_delta_w"] == pytest.approx(update.norm(), rel=1e-3)
            assert row["seed"] == seed and row["method"] == (f"r={r}" if r else "full")
    along_w = ranks[ranks["r"] == 1]
    columns = [name for name in ranks if name.startswith("intruders_")]
    assert len(columns) == 6 and (along_w[columns] == 0).all(axis=None)
    assert (along_w[["random_left_0.6", "random_right_0.6"]] > 0).all(axis=None)

    about = ranks[["run_id", "label", "method", "seed"]].drop_duplicates()
    overlap = pd.read_csv(study_dir / "overlap.csv").merge(about)
    shared = overlap[(overlap["label"] == "full") & (overlap["k"] == 1)]
    assert len(shared) == LAYERS * TYPES * 2, "one pair of seeds, two sides"
    assert (shared["phi"] > shared["chance_high"]).all()
    others = overlap["other_run_id"].map(about.set_index("run_id")["seed"])
    assert (overlap["seed"] != others).all()
    angles = pd.read_csv(study_dir / "angles.csv").merge(about)
    same = angles[angles["method"] == "r=1"]
    assert (same["smallest"] < 0.1).all() and (same["shared"] > 0.999).all()
    spectra = pd.read_csv(study_dir / "spectra.csv").merge(about)
    assert (spectra.loc[spectra["index"] == 1, "value"] == 1).all()
    assert spectra[spectra["label"] == "full"]["index"].max() == 32

    text = (study_dir / "table.md").read_text()
    assert "full, of another seed, shares it above chance in 24 of 24 cases" in text
    for section in ("Ranks", "Intruder dimensions: how many of 10", "Two seeds", "Runs"):
        assert f"## {section}" in text


def test_without_full_fine_tuning(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train(r=2)
    outputs = {path.name for path in run_study(study_dir, runs_dir)}
    assert "overlap.png" not in outputs and "ranks.png" in outputs
    text = (study_dir / "table.md").read_text()
    assert "## Two seeds" not in text


def test_an_update_that_is_zero(train: Train, study_dir: Path, runs_dir: Path) -> None:
    run_id = train(of_w=0.0)
    with pytest.raises(InputError, match=rf"run {run_id}: .* is zero: it was not trained"):
        run_study(study_dir, runs_dir)


def ranks_frame(q: list[float], v: list[float]) -> pd.DataFrame:
    rows = [
        {"model": "m", "task": "t", "method": "r=8", "r": 8.0, "seed": seed, "layer": layer, "weight_type": weight_type,
         "effective_rank": value + 0.1 * layer}
        for weight_type, values in (("q", q), ("v", v))
        for seed, value in enumerate(values)
        for layer in range(4)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_higher_rank_of_q_is_established_or_not() -> None:
    (test,) = report.rank_tests(ranks_frame([6, 6.2, 6.1], [3, 3.1, 3.2])).to_dict("records")
    assert test["difference"] == pytest.approx(3) and test["p_holm"] < 0.05
    assert (test["layers_larger"], test["layers"]) == (4, 4)
    (test,) = report.rank_tests(ranks_frame([6, 3, 4], [3, 6, 4.2])).to_dict("records")
    assert test["p_holm"] > 0.5
    assert report.rank_tests(ranks_frame([6], [3]).query("weight_type == 'q'")).empty


def test_names_are_short_and_tell_methods_apart() -> None:
    rows = [
        ("full", "", None, np.nan),
        ("lora", "r=8, q+k+v+o", "q+k+v+o", 8.0),
        ("lora", "r=64, q+v", "q+v", 64.0),
        ("lora", "r=8, q+v", "q+v", 8.0),
        ("dora", "r=8, q+v", "q+v", 8.0),
    ]
    runs = pd.DataFrame(rows, columns=["label", "settings", "weight_types", "r"])
    assert list(updates.short_names(runs).values()) == [
        "r=8", "r=64", "r=8, 4 types", "full", "dora (r=8, q+v)",
    ]  # fmt: skip


def test_tables_and_figures_need_no_adapters(
    runs: dict[tuple[int, int], str], derive_again: Callable[..., None]
) -> None:
    derive_again(run_study, "spectra.png", "ranks.png", "overlap.png")
