"""The study of quantised base weights, from made-up runs and measurements whose results are known."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from measured_files import write
from scipy import stats

from analysis.studies.qlora import bases
from analysis.studies.qlora import study as qlora
from analysis.study import run_study
from experiments.measure.schemas import QUANTIZED_BASE, QUANTIZED_WEIGHTS
from lora.config import InputError

STUDY = "qlora"
WOBBLE = {0: 0.0, 1: 0.012, 2: -0.009}  # of the seeds
SCATTER = {"none": (0, 0, 0), "int8": (1, -1, 1), "nf4": (-1, 2, 0), "int2": (0, 3, -2), "loftq": (2, 0, -1)}
MEANS = {"none": 0.80, "int8": 0.80, "nf4": 0.79, "int2": 0.60, "loftq": 0.65}
BITS = {"none": 16.0, "int8": 8.05, "nf4": 4.15, "int2": 2.5}
METHOD = {"name": "lora", "r": 8, "alpha": 16, "weight_types": "q+v", "init": "gaussian"}
START = "loftq, r=8, q+v"
Make = Callable[..., str]


def accuracy(case: str, seed: int) -> float:
    return MEANS[case] + WOBBLE[seed] + 0.002 * SCATTER[case][seed]


@pytest.fixture
def make(list_run: Callable[..., None], runs_dir: Path) -> Make:
    """Stores a run of a case, a quantisation or loftq, and lists it."""

    def one(
        case: str, seed: int = 0, lr: float = 1e-3, role: str = "study", shift: float = 0.0, error: str = ""
    ) -> str:
        model = {"name": "minilm", "path": "cache/minilm", "dropout": 0.0}
        if case != "none":
            model["quantization"] = "int2" if case == "loftq" else case
        config: dict[str, Any] = {
            "model": model,
            "task": {"name": "rotten_tomatoes"},
            "method": METHOD | ({"init": "loftq"} if case == "loftq" else {}),
            "training": {"lr": lr, "epochs": 2, "batch_size": 32},
            "seed": seed,
        }
        run_id = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        folder = runs_dir / (f"{run_id}.failed" if error else run_id)
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if error:
            list_run(run_id=run_id, role=role, error=error)
            return run_id
        value = accuracy(case, seed) + shift
        metrics = {
            "trainable_params": 1000, "train_seconds": 2.0, "tokens_per_second": 100.0, "peak_memory_bytes": 10**9,
            "training_memory_bytes": 300_000_000 if case == "none" else None, "precision": "bfloat16",
            "main_metric": "accuracy",
            "metrics": [
                {"split": split, "metric": metric, "value": number}
                for split in ("validation", "test") for metric, number in (("accuracy", value), ("loss", 2 - value))
            ],
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics))
        list_run(run_id=run_id, role=role)
        return run_id

    return one


def measure(study_dir: Path, text: str = "hidden_error") -> None:
    """The files that measure.quantized_base leaves: an encoder's, or with text loss those of a language model."""
    rows, weights = [], []
    for kind, start in (("none", ""), ("int8", ""), ("nf4", ""), ("int2", ""), ("int2", START)):
        keys = {"model": "minilm", "quantization": kind, "start": start, "precision": "bf16"}
        values = {("bits", "layers"): BITS[kind], ("bytes", "layers"): 1e6 * BITS[kind] / 8}
        values["bytes", "model"] = values["bytes", "layers"] + 5e6
        if text == "loss" or kind != "none":
            values[text, "bbc_news"] = np.log(30 + 10 * (16 - BITS[kind])) - 0.1 * bool(start)
        rows += [keys | {"measure": m, "on": on, "value": value, "sha256": "x"} for (m, on), value in values.items()]
        for layer in range(2):
            for place, weight_type in enumerate(("q", "down")):
                row = {"module": f"layer.{layer}.{weight_type}", "weight_type": weight_type, "layer": layer}
                error = 0.1 * (16 - BITS[kind]) + 0.01 * layer + 0.1 * place
                weights += [keys | row | {"d": 64, "k": 64, "error": error}] if kind != "none" else []
    write(rows, study_dir, QUANTIZED_BASE)
    write(weights, study_dir, QUANTIZED_WEIGHTS)


@pytest.fixture
def study(make: Make, study_dir: Path) -> Path:
    for case in MEANS:
        for seed in WOBBLE:
            make(case, seed)
    measure(study_dir)
    return study_dir


def tabulated(study_dir: Path, runs_dir: Path) -> pd.DataFrame:
    qlora.STUDY.build(study_dir, runs_dir)
    return pd.read_csv(study_dir / "table.csv", keep_default_na=False, na_values=[""])


def test_means_and_differences_are_paired_by_seed(study: Path, runs_dir: Path) -> None:
    table = tabulated(study, runs_dir)
    rows = table[table["metric"] == "accuracy"].set_index(["quantization", "label"])
    assert list(rows.index) == [
        ("none", "lora"),
        ("int8", "lora"),
        ("nf4", "lora"),
        ("int2", "lora"),
        ("int2", "loftq"),
    ]
    values = {case: np.array([accuracy(case, seed) for seed in WOBBLE]) for case in MEANS}
    keys = dict(zip(MEANS, rows.index, strict=True))
    tests = {case: stats.ttest_rel(values[case], values["none"]) for case in MEANS if case != "none"}
    for case, key in keys.items():
        assert rows.loc[key, "mean"] == pytest.approx(values[case].mean(), rel=1e-5)
        assert rows.loc[key, "n"] == 3 and rows.loc[key, "bits"] == BITS[key[0]]
        if case == "none":
            assert np.isnan(rows.loc[key, "none_pairs"])
            continue
        assert rows.loc[key, "none_difference"] == pytest.approx((values[case] - values["none"]).mean(), abs=1e-6)
        assert rows.loc[key, "none_p"] == pytest.approx(tests[case].pvalue, rel=1e-4)
    ordered = sorted(tests, key=lambda case: tests[case].pvalue)
    smallest = rows.loc[keys[ordered[0]], "none_p_holm"]
    assert smallest == pytest.approx(4 * tests[ordered[0]].pvalue, rel=1e-4)

    against = stats.ttest_rel(values["loftq"], values["int2"])
    row = rows.loc[keys["loftq"]]
    assert row["plain_p_holm"] == row["plain_p"] == pytest.approx(against.pvalue, rel=1e-4)
    gap = (values["loftq"] - values["int2"]).mean() / (values["none"] - values["int2"]).mean()
    assert row["plain_closed"] == pytest.approx(gap, rel=1e-4)
    assert rows.drop(index=[keys["loftq"]])["plain_closed"].isna().all()


def test_the_report_says_what_the_tests_say(study: Path, runs_dir: Path) -> None:
    qlora.STUDY.build(study, runs_dir)
    text = (study / "table.md").read_text()
    assert "accuracy, against no quantisation, 4 corrected tests: worse " in text
    worse = text.partition("corrected tests: worse ")[2].partition(";")[0]
    assert "int2 (r = 8)" in worse and "int8" not in worse
    assert "accuracy, LoftQ's start in place of the plain one, r = 8: +5.0 ± " in text
    assert "% of the gap of the means" in text
    assert "hidden error, bbc_news" in text and "perplexity, " not in text
    row, exact = (
        next(line for line in text.splitlines() if line.startswith(f"| {name} ") and "±" in line)
        for name in ("nf4", "not quantised")
    )
    assert "4.15" in row and "79.2 ± " in row
    assert "300.0" in exact and "300.0" not in row
    assert "Each quantisation has its own learning rate" not in text


def test_the_loss_is_better_when_it_is_lower(study: Path, runs_dir: Path) -> None:
    table = tabulated(study, runs_dir)
    loss = table[table["metric"] == "loss"].set_index(["quantization", "label"])
    assert loss.loc[("int2", "lora"), "none_difference"] == pytest.approx(0.2, abs=0.01)
    line = next(line for line in (study / "table.md").read_text().splitlines() if line.startswith("- loss, against"))
    assert "int2 (r = 8)" in line.partition("worse ")[2].partition(";")[0]


def test_a_language_model_has_perplexities(study: Path, runs_dir: Path) -> None:
    measure(study, "loss")
    paths = run_study(study, runs_dir)
    names = {"runs.csv", "table.csv", "bases.csv", "table.md", "qlora.png", "provenance.json"}
    assert {path.name for path in paths} == names
    assert all(path.stat().st_size > 100 for path in paths)
    text = (study / "table.md").read_text()
    assert "perplexity, bbc_news" in text and "| 30.0 " in text
    base = pd.read_csv(study / "bases.csv", keep_default_na=False)
    assert base["quantization"].tolist() == ["none", "int8", "nf4", "int2", "int2"]
    assert base["error"].tolist() == pytest.approx([0, 0.85, 1.24, 1.405, 1.405], abs=1e-6)


def test_errors_by_weight_type(study: Path, runs_dir: Path) -> None:
    runs = bases.load(study, runs_dir)
    wide = bases.errors_by_type(bases.read(study, QUANTIZED_WEIGHTS, runs))
    assert list(wide.columns) == [*bases.KEYS, "q", "down"]
    assert wide.loc[wide["quantization"] == "nf4", "q"].item() == pytest.approx(1.19)
    shown = bases.typed(wide)
    assert shown["base weights"].tolist() == ["int8", "nf4", "int2", f"int2, {START}"]


def test_no_share_of_a_gap_that_may_be_none(make: Make, study_dir: Path, runs_dir: Path) -> None:
    for seed, shift in zip(WOBBLE, (0.15, 0.21, 0.26), strict=True):  # the plain start is as good as no quantisation
        make("none", seed)
        make("int2", seed, shift=shift)
        make("loftq", seed)
    measure(study_dir)
    table = tabulated(study_dir, runs_dir)
    assert table["plain_closed"].isna().all() and table["plain_p"].notna().sum() == 2
    assert "of the gap" not in (study_dir / "table.md").read_text()


def test_rates_are_those_of_one_quantisation(make: Make, study_dir: Path, runs_dir: Path) -> None:
    """Each quantisation is tuned alone: its rates, and those that failed, are not mixed with the others'."""
    for case, best in (("none", 1e-2), ("int2", 1e-3)):
        for lr in (1e-3, 1e-2):
            make(case, 0, lr, role="tuning", shift=0.0 if lr == best else -0.1)
        make(case, 0, best)
        make(case, 1, best)
    make("int2", 0, 3e-2, role="tuning", error="the loss is nan")
    measure(study_dir)
    qlora.STUDY.build(study_dir, runs_dir)
    rates = pd.read_csv(study_dir / "learning_rates.csv")
    chosen = rates[rates["chosen"]].set_index("settings")["lr"]
    assert chosen.to_dict() == {"r=8, q+v": 1e-2, "r=8, q+v, int2": 1e-3}
    assert rates[rates["n"] == 0]["settings"].tolist() == ["r=8, q+v, int2"]
    assert "Each quantisation has its own learning rate" in (study_dir / "table.md").read_text()


def test_one_seed_is_not_tested(make: Make, study_dir: Path, runs_dir: Path) -> None:
    make("none")
    make("nf4")
    measure(study_dir)
    qlora.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "no test, which takes two seeds that differ" in text and "p < 0.001" not in text


def test_without_a_run_that_is_not_quantised(make: Make, study_dir: Path, runs_dir: Path) -> None:
    for seed in WOBBLE:
        make("int2", seed)
        make("loftq", seed)
    measure(study_dir)
    qlora.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert (
        "no test, which takes two seeds that differ" in text and "LoftQ's start" in text and "% of the gap" not in text
    )


def test_what_is_missing_is_said(study: Path, runs_dir: Path) -> None:
    measured = (study / QUANTIZED_BASE.file).read_text()
    (study / QUANTIZED_BASE.file).unlink()
    with pytest.raises(InputError, match=r"has no quantized_base\.csv; `make .* measures it"):
        qlora.STUDY.build(study, runs_dir)
    others = [line for line in measured.splitlines(keepends=True) if ",nf4," not in line]
    (study / QUANTIZED_BASE.file).write_text("".join(others))
    with pytest.raises(InputError, match=r"quantized_base\.csv lacks 1 of 5 bases"):
        qlora.STUDY.build(study, runs_dir)
    (study / QUANTIZED_BASE.file).write_text("not,a\ntable,\n")
    with pytest.raises(InputError, match=r"quantized_base\.csv is damaged"):
        qlora.STUDY.build(study, runs_dir)
