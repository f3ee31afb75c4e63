"""Figure 8 from made-up runs whose directions are known."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny_models import HIDDEN, LAYERS

from analysis.maths.subspace import phi
from analysis.study import run_study
from analysis.weights.pretrained import Weights
from analysis.weights.updates import read_run
from lora.config import InputError

STUDY = "w_vs_delta"
VERSIONS = ("", "_delta_w", "_B", "_delta_w_left")
Train = Callable[..., str]


def test_directions_of_w_and_others_are_told_apart(train: Train, study_dir: Path, runs_dir: Path, base: Path) -> None:
    for seed in (0, 1):
        train(r=2, seed=seed, of_w=1.0)
        random = train(r=4, seed=seed)
    outputs = {path.name for path in run_study(study_dir, runs_dir)} - {"provenance.json"}
    figures = {f"fig8{version}.png" for version in VERSIONS} | {"curves.png"}
    kept = {"phi.csv", "curves.csv", "chance.csv", "maps.csv"}
    assert outputs == figures | kept | {"runs.csv", "table.csv", "table.md"}
    assert all((study_dir / name).stat().st_size > 5000 for name in figures)

    rows = pd.read_csv(study_dir / "phi.csv").merge(pd.read_csv(study_dir / "chance.csv"))
    top = HIDDEN // 10
    # seeds, layers, weight types, sides, and for each rank its i with j = 1 and r
    assert len(rows) == 2 * LAYERS * 2 * 2 * sum(len({1, r, top}) * 2 for r in (2, 4))
    known = rows[(rows["r"] == 2) & rows["side"].str.startswith("delta_w")]
    np.testing.assert_allclose(known.loc[known["i"] >= known["j"], "phi"], 1, atol=1e-3)
    others = rows[(rows["run_id"] == random) & (rows["j"] == 4) & rows["top"]]
    W = Weights.open(str(base))
    for site, update in read_run(runs_dir / random).items():
        U, _, Vh = np.linalg.svd(W.matrix(update.module, update.weight_type).double().numpy())
        svd = update.svd()
        for side, ours, theirs in (("delta_w_right", Vh.T, svd.Vh.T), ("delta_w_left", U, svd.U)):
            (row,) = others[
                (others["layer"] == int(site.layer))
                & (others["weight_type"] == site.weight_type)
                & (others["side"] == side)
            ].to_dict("records")
            assert row["phi"] == pytest.approx(phi(ours, theirs)[top - 1, 3], abs=1e-3)
            assert row["chance_mean"] == pytest.approx(4 / HIDDEN, rel=0.15)
            assert row["chance_low"] < row["chance_mean"] < row["chance_high"]

    text = (study_dir / "table.md").read_text()
    assert "the 2 input directions of delta_w a share of 1.00 lies in the top 10% of W's" in text
    assert "lora (r=4, q+v)" in text
    table = pd.read_csv(study_dir / "table.csv")
    whole = table[(table["r"] == 2) & (table["i"] == 2) & (table["j"] == 2)]
    assert (whole["above"] == whole["n"]).all() and (whole["below"] == 0).all()


def test_every_place_has_its_figures(train: Train, study_dir: Path, runs_dir: Path) -> None:
    for task in ("rotten_tomatoes", "glue/sst2"):
        train(task=task)
    outputs = {path.name for path in run_study(study_dir, runs_dir)}
    assert {f"fig8{version}_{task}.png" for version in VERSIONS for task in ("rotten_tomatoes", "glue_sst2")} < outputs


def test_curves_are_drawn_of_the_places_that_have_them(
    train: Train, study_dir: Path, runs_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(task="rotten_tomatoes")
    lost = train(task="glue/sst2")
    run_study(study_dir, runs_dir)
    shutil.rmtree(runs_dir / lost / "adapter")
    file, figure = study_dir / "curves.csv", study_dir / "curves.png"
    curves, both = pd.read_csv(file, dtype=str), figure.read_bytes()
    curves[curves["run_id"] != lost].to_csv(file, index=False)
    run_study(study_dir, runs_dir)
    assert "curves.png is without glue/sst2 (" in capsys.readouterr().out
    assert plt.imread(figure).shape[0] < plt.imread(io.BytesIO(both)).shape[0], "a row of panels less"


def test_only_lora_has_a_and_b(train: Train, study_dir: Path, runs_dir: Path) -> None:
    run_id = train(full=True)
    with pytest.raises(InputError, match=rf"run {run_id} is full, whose update has no A and B"):
        run_study(study_dir, runs_dir)


def test_an_update_that_is_zero(train: Train, study_dir: Path, runs_dir: Path) -> None:
    run_id = train(of_w=0.0)
    with pytest.raises(InputError, match=rf"run {run_id}: .*query, q: the update is zero"):
        run_study(study_dir, runs_dir)


def test_tables_and_figures_need_no_adapters(train: Train, derive_again: Callable[..., None]) -> None:
    for seed in (0, 1):
        train(r=2, seed=seed)
        train(r=4, seed=seed)
    derive_again(run_study, "fig8.png", "fig8_B.png", "curves.png")
