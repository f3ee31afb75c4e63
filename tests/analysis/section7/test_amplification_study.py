"""Table 7 from made-up runs, and every input that it must refuse."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_models import HIDDEN, LAYERS

from analysis import study
from analysis.studies.amplification import study as amplification
from analysis.studies.amplification.tables import by_rank, compare_ranks, verdict
from analysis.weights.pretrained import Weights
from analysis.weights.updates import read_run
from experiments.store import fingerprint
from lora import io
from lora.config import InputError

STUDY = "amplification"
Train = Callable[..., str]


def test_known_updates_have_known_factors(train: Train, study_dir: Path, runs_dir: Path, base: Path) -> None:
    for seed in (0, 1):
        train(r=1, seed=seed, of_w=5.0)
        random = train(r=4, seed=seed)
    outputs = {path.name for path in study.run_study(study_dir, runs_dir)} - {"provenance.json"}
    figures = {"amplification.png", "projections.png"}
    assert outputs == figures | {"runs.csv", "amplification.csv", "table.csv", "table.md"}
    assert all((study_dir / name).stat().st_size > 5000 for name in figures)

    rows = pd.read_csv(study_dir / "amplification.csv")
    assert list(rows.columns) == amplification.COLUMNS
    assert len(rows) == 2 * 2 * LAYERS * 2
    known = rows[rows["r"] == 1]
    np.testing.assert_allclose(known["amplification"], 5, rtol=1e-4)
    np.testing.assert_allclose(known["projection_delta_w"], known["projection_w"], rtol=1e-4)
    assert (known["projection_delta_w"] > known["projection_random_high"]).all()

    W = Weights.open(str(base))
    for site, update in read_run(runs_dir / random).items():
        (row,) = rows[
            (rows["run_id"] == random) & (rows["layer"] == int(site.layer)) & (rows["weight_type"] == site.weight_type)
        ].to_dict("records")
        dense = W.matrix(update.module, update.weight_type).double().numpy()
        U, S, Vh = update.svd()
        delta_w = (U * S) @ Vh
        u, _, vh = np.linalg.svd(delta_w)
        assert row["norm_w"] == pytest.approx(np.linalg.norm(dense), rel=1e-4)
        assert row["norm_delta_w"] == pytest.approx(np.linalg.norm(delta_w), rel=1e-4)
        assert row["projection_delta_w"] == pytest.approx(np.linalg.norm(u[:, :4].T @ dense @ vh[:4].T), rel=1e-4)
        top = np.linalg.svd(dense, compute_uv=False)[:4]
        assert row["projection_w"] == pytest.approx(np.linalg.norm(top), rel=1e-4)
        assert row["projection_random"] == pytest.approx(4 * np.linalg.norm(dense) / HIDDEN, rel=0.1)
        assert row["projection_random_low"] < row["projection_random"] < row["projection_random_high"]

    text = (study_dir / "table.md").read_text()
    assert "| paper, GPT-3 | –               | q         | 48      | 64  | 1.9" in text
    assert "W is the pretrained weight in fp32" in text
    assert f"of {len(rows)} updates" in text
    assert "W in the directions of delta_w is larger than in 95% of random directions in" in text
    assert "r = 1 has" in text and "the factor of r = 4" in text
    assert "lora (r=1, q+v)" in text


def frame(factors: dict[int, list[float]], layers: int = 3) -> pd.DataFrame:
    """Rows in which each seed has a factor at each rank, in all layers, and W has the random share."""
    rows = [
        {
            "model": "m", "task": "t", "run_id": f"{r}-{seed}", "seed": seed, "r": r, "layer": str(layer),
            "weight_type": "q", "norm_w": 10.0, "norm_delta_w": factor, "projection_delta_w": 1.0,
            "projection_w": 4.0, "projection_random": 0.5, "projection_random_low": 0.4,
            "projection_random_high": 0.6, "amplification": factor,
        }
        for r, seeds in factors.items()
        for seed, factor in enumerate(seeds)
        for layer in range(layers)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_smaller_factor_at_a_larger_rank_is_told_from_none() -> None:
    larger = frame({4: [20, 22, 21], 64: [2, 2.1, 2.2]})
    (test,) = compare_ranks(larger).to_dict("records")
    assert np.exp(test["difference"]) == pytest.approx((20 * 22 * 21 / (2 * 2.1 * 2.2)) ** (1 / 3))
    assert test["p_holm"] < 0.05
    assert (test["layers_larger"], test["layers"], test["pairs"]) == (3, 3, 3)
    lines = verdict(larger, compare_ranks(larger))
    assert "larger at the smallest rank than at the largest in 1 of 1 comparisons, smaller in 0" in lines[2]
    assert "above 1 in 18 of 18 updates" in lines[0]
    assert "larger than in 95% of random directions in 18 of 18 updates, and smaller in 0" in lines[1]
    assert "2 to 2 times the random mean, and 25 to 25% of what W's own top r" in lines[1]

    undecided = frame({4: [20, 2, 7], 64: [2, 20, 8]})
    lines = verdict(undecided, compare_ranks(undecided))
    assert "in 0 of 1 comparisons, smaller in 0" in lines[2]
    reverse = frame({4: [2, 2.1, 2.2], 64: [20, 22, 21]})
    assert "in 0 of 1 comparisons, smaller in 1" in verdict(reverse, compare_ranks(reverse))[2]


def test_one_seed_and_one_rank_are_no_test() -> None:
    one = frame({4: [20], 64: [2]})
    assert "10 times (1 seed: no test)" in verdict(one, compare_ranks(one))[3]
    assert np.isnan(by_rank(one)["factor_low"]).all()
    alone = frame({4: [20, 21]})
    assert compare_ranks(alone).empty
    assert len(verdict(alone, compare_ranks(alone))) == 2


def test_an_update_that_is_zero(train: Train, study_dir: Path, runs_dir: Path) -> None:
    run_id = train(of_w=0.0)
    with pytest.raises(InputError, match=rf"run {run_id}: the update of .*query, q, is zero: it was not trained"):
        study.run_study(study_dir, runs_dir)


def test_an_update_without_a_rank(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train()
    run_id = train(full=True)
    with pytest.raises(InputError, match=rf"run {run_id} is full, whose update has no rank r: this study is of LoRA"):
        study.run_study(study_dir, runs_dir)


def test_a_model_that_is_gone(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train(place="/nowhere/tiny")
    with pytest.raises(InputError, match="/nowhere/tiny does not exist"):
        study.run_study(study_dir, runs_dir)


def test_two_runs_of_one_rank_and_seed(train: Train, study_dir: Path, runs_dir: Path) -> None:
    train(lr=1e-3)
    train(lr=1e-2)
    with pytest.raises(InputError, match="runs of the same seed with different settings"):
        study.run_study(study_dir, runs_dir)


def test_a_damaged_adapter(train: Train, study_dir: Path, runs_dir: Path) -> None:
    weights = runs_dir / train() / "adapter" / io.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match="is damaged"):
        study.run_study(study_dir, runs_dir)


def test_a_model_folder_of_the_users_own(
    train: Train, study_dir: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = train(place=f"fingerprint:{fingerprint(base)}")

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["analysis.study", str(study_dir), *arguments])
        code = study.main()
        return code, capsys.readouterr().err

    code, error = command()
    assert code == 2
    assert (
        error == f"error: run {run_id} started from a model folder of your own: say where it is, with --base FOLDER\n"
    )
    code, error = command("--base", str(study_dir))
    assert code == 2 and "is not the model folder that run" in error and len(error.splitlines()) == 1
    assert command("--base", str(base)) == (0, "")
    assert (study_dir / "table.md").is_file()


def test_tables_and_figures_need_no_adapters(train: Train, derive_again: Callable[..., None]) -> None:
    for seed in (0, 1):
        train(r=1, seed=seed)
        train(r=4, seed=seed)
    derive_again(study.run_study, "amplification.png", "projections.png")


def test_only_what_is_new_is_measured(train: Train, study_dir: Path, runs_dir: Path) -> None:
    first = train(r=1)
    study.run_study(study_dir, runs_dir)
    kept = (study_dir / "amplification.csv").read_text()
    shutil.rmtree(runs_dir / first / "adapter")
    second = train(r=1, seed=1)
    study.run_study(study_dir, runs_dir)
    assert (study_dir / "amplification.csv").read_text().startswith(kept)
    assert set(pd.read_csv(study_dir / "amplification.csv", dtype=str)["run_id"]) == {first, second}

    third = train(r=1, seed=2)
    shutil.rmtree(runs_dir / third / "adapter")
    with pytest.raises(
        InputError, match=rf"run {third} is not measured yet .*`make amplification PRESET=quick` trains"
    ):
        study.run_study(study_dir, runs_dir)
    (study_dir / "amplification.csv").write_text(kept[:-9])
    with pytest.raises(InputError, match="amplification.csv is damaged .a line is cut short"):
        study.run_study(study_dir, runs_dir)
