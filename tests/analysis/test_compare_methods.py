from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.studies import compare_methods
from lora.config import InputError

STUDY = "compare_methods"
LORA: dict[str, Any] = {"name": "lora", "r": 8, "alpha": 16, "weight_types": "q+v"}
METHODS: dict[str, tuple[dict[str, Any], int, tuple[float, ...]]] = {
    "full": ({"name": "full"}, 10**6, (0.80, 0.82, 0.84, 0.81)),
    "head_only": ({"name": "head_only"}, 770, (0.60, 0.61, 0.59, 0.62)),
    "adapter_d": ({"name": "adapter_d", "bottleneck": 16, "drop": 2}, 5770, (0.79, 0.80, 0.83)),
    "lora": (LORA, 8770, (0.81, 0.83, 0.84, 0.83)),
    "dora": (LORA | {"dora": True}, 9770, (0.82, 0.82, 0.85, 0.83)),
}


@pytest.fixture
def study(make_run: Callable[..., str]) -> None:
    for name, (method, size, values) in METHODS.items():
        best = 1e-4 if name == "full" else 1e-3
        for step, validation in enumerate((0.70, 0.78, 0.80, 0.70)):
            shared = {"method": method, "trainable_params": size, "lr": best * 10.0 ** (step - 2)}
            if name == "lora" and step == 3:
                make_run(**shared, role="tuning", error="training diverged: the loss is nan at step 3")
            else:
                make_run(**shared, role="tuning", validation=validation, test=values[0])
        if name == "dora":
            make_run(method=method, trainable_params=size, lr=1e-1, validation=0.6, role="tuning")
        for seed, test in enumerate(values):
            make_run(method=method, trainable_params=size, lr=best, seed=seed, test=test, validation=0.80)


def test_table_has_quality_parameters_tuning_and_paired_tests(study: None, study_dir: Path, runs_dir: Path) -> None:
    outputs = compare_methods.STUDY.build(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "table.md", "learning_rates.csv", "compare_methods.png", "learning_rates.png"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)

    table = pd.read_csv(study_dir / "table.csv").set_index("label")
    assert list(table.index) == ["full", "head_only", "adapter_d", "lora", "dora"]
    assert table["n"].to_dict() == {name: len(values) for name, (_, _, values) in METHODS.items()}
    assert table["without_head"].to_dict() == {name: size - 770 for name, (_, size, _) in METHODS.items()}
    assert table["lr"].to_dict() == dict.fromkeys(METHODS, 1e-3) | {"full": 1e-4}
    assert table["tried"].to_dict() == dict.fromkeys(METHODS, 4) | {"dora": 5}
    assert table["beyond_grid"].to_dict() == dict.fromkeys(METHODS, 0) | {"dora": 1}
    assert table["failed"].to_dict() == dict.fromkeys(METHODS, 0) | {"lora": 1}
    assert not table["at_edge"].any()
    # 0.70 at the next rate: a tenth of the decade; on the other side 0.78 is 2 points below, and half of it is 1 point.
    assert table.loc["full", ["decades_1", "decades_2"]].tolist() == pytest.approx([0.6, 1.2], abs=1e-3)
    assert table.loc["lora", ["decades_1", "decades_2"]].tolist() == pytest.approx([0.5, 1.0], abs=1e-3)
    assert table["paper"].to_dict() == {
        "full": "86.4 (125.0M)", "adapter_d": "84.4 (0.3M), 85.4 (0.9M)", "lora": "87.2 (0.3M)",
        "head_only": np.nan, "dora": np.nan,
    }  # fmt: skip

    for reference in ("full", "lora"):
        tests = {}
        for name, (_, _, values) in METHODS.items():
            if name != reference:
                base = METHODS[reference][2][: len(values)]
                tests[name] = stats.ttest_rel(values, base).pvalue
                difference = np.mean(values) - np.mean(base)
                assert table.loc[name, f"{reference}_difference"] == pytest.approx(difference, abs=1e-6)
        found = table[f"{reference}_p"].dropna()
        assert found.to_dict() == pytest.approx(tests, rel=1e-4)
        least = min(tests, key=lambda name: tests[name])
        assert table.loc[least, f"{reference}_p_holm"] == pytest.approx(4 * tests[least], rel=1e-4)
        assert np.isnan(table.loc[reference, f"{reference}_difference"])


def test_report_says_what_was_tuned_and_what_was_found(study: None, study_dir: Path, runs_dir: Path) -> None:
    compare_methods.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "- Seeds a method: 3 to 4." in text
    assert "Rates tried a method: 4 to 5; 21 tuning runs in all, 1 of which did not train." in text
    assert "so that a better one may lie outside: none." in text
    assert "- Rates good to 2 points: narrowest: lora × 10; widest: " in text
    assert "Against full, 4 tests: better none; worse head_only; not told apart adapter_d, lora, dora." in text
    assert "Against lora (r=8, q+v), 4 tests: better none; worse head_only" in text
    row = next(line for line in text.splitlines() if line.startswith("| adapter_d"))
    assert "80.7 ± 5.2 (3)" in row
    assert "pairs)" not in row
    assert "| 5,770        | 5,000 " in row
    assert "5, 1e-05 to 0.1 (1 beyond the grid)" in text
    assert "4, 1e-05 to 0.01 (1 did not train)" in text
    assert "(lora (r=8, q+v) on rotten_tomatoes, lr 0.01, seed 0) failed" in text


def test_a_glue_task_is_beside_the_papers_number_for_it(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_run(task="glue/sst2", method={"name": "full"})
    make_run(task="cola", method={"name": "bitfit"})
    make_run(task="rotten_tomatoes", method={"name": "bitfit"})
    compare_methods.STUDY.build(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv").set_index("task")
    assert table["paper_task"].to_dict() == {"glue/sst2": "sst2", "cola": "cola", "rotten_tomatoes": "avg"}
    assert table["paper"].to_dict() == {
        "glue/sst2": "94.8 (125.0M)", "cola": "62.0 (0.1M)", "rotten_tomatoes": "85.2 (0.1M)",
    }  # fmt: skip
    text = (study_dir / "table.md").read_text()
    assert "paper, sst2" in text
    assert "paper, GLUE average" in text


def test_one_seed_without_tuning_full_or_lora(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(method={"name": "bitfit"}, test=0.8)
    make_run(method={"name": "prefix_embed", "l_p": 8, "l_i": 0}, test=0.7)
    outputs = {path.name for path in compare_methods.STUDY.build(study_dir, runs_dir)}
    assert outputs == {"runs.csv", "table.csv", "table.md", "compare_methods.png"}
    table = pd.read_csv(study_dir / "table.csv")
    assert table["interval"].isna().all()
    assert table["without_head"].isna().all()
    text = (study_dir / "table.md").read_text()
    assert "No learning rate was tuned in this study" in text
    assert "No run of full: nothing is compared with it." in text
    assert "No run of lora: nothing is compared with it." in text
    assert "80.0 (1)" in text


def test_one_seed_with_references_has_differences_but_no_test(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_run(method={"name": "full"}, test=0.8)
    make_run(method=LORA, test=0.83)
    make_run(method=LORA, test=0.5, task="reuters_r8")
    compare_methods.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "| +3.0 " in text
    assert "Against full: no test, which takes two seeds that both have." in text
    assert "pair)" not in text
    assert "## reuters_r8" in text


def test_fewer_pairs_than_seeds_are_told(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for seed, test in enumerate((0.80, 0.82, 0.85)):
        make_run(seed=seed, test=test)
    for seed, test in ((1, 0.80), (2, 0.81), (7, 0.90)):
        make_run(method={"name": "full"}, seed=seed, test=test)
    make_run(method={"name": "bitfit"}, seed=7, test=0.7)
    compare_methods.STUDY.build(study_dir, runs_dir)
    rows = (study_dir / "table.md").read_text().splitlines()
    assert "(2 pairs)" in next(row for row in rows if row.startswith("| full"))
    bitfit = next(row for row in rows if row.startswith("| bitfit"))
    assert "-20.0" in bitfit
    assert "no seed in common" in bitfit


def test_of_several_lora_settings_the_one_with_most_seeds_is_the_reference(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for r, seeds in ((4, 2), (8, 3), (16, 3)):
        for seed in range(seeds):
            make_run(r=r, seed=seed, test=0.8 + r / 1000 + seed * (r - 8) / 1000)
    compare_methods.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "Against lora (r=8, q+v), 2 tests: better none; worse none; not told apart lora (r=4" in text


def test_methods_that_were_only_tuned_are_named(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(method={"name": "bitfit"}, role="tuning")
    make_run(method={"name": "full"}, lr=1e-4)
    compare_methods.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "without a finished run that is compared: bitfit on rotten_tomatoes." in text


def test_every_rate_at_the_edge_is_told(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for lr, validation in ((1e-4, 0.7), (1e-3, 0.75), (1e-2, 0.8)):
        make_run(lr=lr, validation=validation, role="tuning")
    make_run(lr=1e-2, validation=0.8)
    compare_methods.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "so that a better one may lie outside: lora." in text
    assert "best at the edge" in text
    assert "≥ × 1.6" in text  # 1 point of the 5 between two rates: a fifth of a decade


def test_two_runs_of_one_seed_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(lr=1e-3)
    make_run(lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        compare_methods.STUDY.build(study_dir, runs_dir)
