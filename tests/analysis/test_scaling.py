from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.studies import scaling
from lora.config import InputError

STUDY = "scaling"
HEAD = 770
SEEDS = (0.000, 0.010, 0.021)
# bottleneck -> (test, validation): on validation 4 is the best, on test 16; the largest is clearly worse than 4.
ADAPTERS = {1: (0.70, 0.70), 4: (0.80, 0.82), 16: (0.81, 0.81), 64: (0.75, 0.76)}


@pytest.fixture
def lines(make_run: Callable[..., str]) -> None:
    wobble = (0.0, 0.001, -0.001)
    for seed, shift in enumerate(SEEDS):
        for bottleneck, (test, validation) in ADAPTERS.items():
            make_run(
                method={"name": "adapter_h", "bottleneck": bottleneck}, trainable_params=HEAD + 100 * bottleneck,
                seed=seed, test=test + shift + wobble[seed] * (bottleneck == 64), validation=validation + shift,
            )  # fmt: skip
        for weight_types, width in (("q+v", 2), ("q+k+v+o", 4)):
            for r in (1, 8):
                make_run(
                    r=r, weight_types=weight_types, trainable_params=HEAD + 768 * width * r, seed=seed,
                    test=0.8 + r / 1000 + shift, validation=0.8 + r / 1000,
                )  # fmt: skip
        make_run(method={"name": "full"}, trainable_params=10**6, seed=seed, test=0.82 + shift)


def test_points_lines_and_falls(lines: None, make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(method={"name": "head_only"}, trainable_params=HEAD, test=0.6)
    outputs = scaling.STUDY.build(study_dir, runs_dir)
    assert {path.name for path in outputs} == {"runs.csv", "table.csv", "falls.csv", "table.md", "scaling.png"}
    assert all(path.stat().st_size for path in outputs)

    table = pd.read_csv(study_dir / "table.csv")
    ours = table[table["source"] == "ours"]
    assert list(dict.fromkeys(ours["line"])) == ["full", "head_only", "lora q+v", "lora q+k+v+o", "adapter_h"]
    assert ours[ours["line"] == "adapter_h"]["size"].tolist() == [100, 400, 1600, 6400]
    assert ours[ours["line"] == "lora q+v"]["size"].tolist() == [1536, 12288]
    paper = table[table["source"] == "paper"].set_index(["task", "line", "settings"])
    assert paper.loc[("WikiSQL", "lora q+k+v+o", "rq=rk=rv=ro=2"), ["size", "mean"]].tolist() == [18.8e6, 0.737]
    assert paper.loc[("MNLI-m", "lora v", "rv=2"), "mean"] == pytest.approx(0.917)
    assert len(paper) == 2 * 30

    falls = pd.read_csv(study_dir / "falls.csv")
    found = falls[falls["source"] == "ours"].set_index("line")
    assert found[["best", "largest"]].loc["adapter_h"].tolist() == ["bottleneck=4", "bottleneck=64"]
    pairs = np.array([-0.05, -0.049, -0.051])
    assert found.loc["adapter_h", "difference"] == pytest.approx(pairs.mean())
    assert found.loc["adapter_h", "interval"] == pytest.approx(4.302653 * pairs.std(ddof=1) / 3**0.5, rel=1e-4)
    assert found.loc["adapter_h", "p_holm"] == pytest.approx(stats.ttest_1samp(pairs, 0).pvalue, rel=1e-3)
    assert found.loc["lora q+v", ["best", "largest"]].nunique() == 1
    theirs = falls[falls["source"] == "paper"].set_index(["task", "line"])
    assert theirs.loc[("WikiSQL", "prefix_embed"), "difference"] == pytest.approx(-0.072)

    text = (study_dir / "table.md").read_text()
    rows = {tuple(cell.strip() for cell in line.split("|")[2:4]): line for line in text.splitlines() if line[:1] == "|"}
    assert "-5.0 ± 0.2, p < 0.001 * (3 pairs) | yes" in rows["rotten_tomatoes", "adapter_h"]
    assert "no: the largest is the best" in rows["rotten_tomatoes", "lora q+v"]
    assert "-7.2" in rows["WikiSQL", "prefix_embed"]
    assert "less the head's" in text
    assert "None of them was tuned" in text


def test_without_head_only_the_head_is_counted_and_it_is_said(lines: None, study_dir: Path, runs_dir: Path) -> None:
    scaling.STUDY.build(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv")
    assert table[table["line"] == "adapter_h"]["size"].tolist()[:2] == [HEAD + 100, HEAD + 400]
    assert "Parameters include the head's on rotten_tomatoes" in (study_dir / "table.md").read_text()


def test_single_points_and_one_seed_are_no_test(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(method={"name": "bitfit"}, trainable_params=900)
    scaling.STUDY.build(study_dir, runs_dir)
    make_run(r=1, test=0.8, validation=0.82)
    make_run(r=8, test=0.79, validation=0.80)
    scaling.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "-1.0 (1 pair)" in text
    assert "not tested" in text


def test_tuning_is_told(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for lr, validation in ((1e-4, 0.7), (1e-3, 0.8)):
        make_run(lr=lr, validation=validation, role="tuning")
    make_run(lr=1e-3, validation=0.8)
    assert "learning_rates.csv" in {path.name for path in scaling.STUDY.build(study_dir, runs_dir)}
    text = (study_dir / "table.md").read_text()
    assert "2 tuning runs at 1 of these points" in text
    assert "Best rate at the edge of those tried: lora (r=8, q+v) on rotten_tomatoes." in text


def test_two_runs_of_one_seed_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(lr=1e-3)
    make_run(lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        scaling.STUDY.build(study_dir, runs_dir)


def test_every_method_of_the_study_has_a_line() -> None:
    lora: dict[str, Any] = {"method": "lora", "weight_types": "q+v"}
    rows = [
        lora | {"label": "lora"},
        lora | {"label": "dora"},
        {"method": "lora+prefix_embed", "label": "lora+prefix_embed", "weight_types": "q+v"},
        {"method": "full", "label": "full", "weight_types": None},
    ]
    assert scaling.with_lines(pd.DataFrame(rows))["line"].tolist() == [
        "lora q+v",
        "dora q+v",
        "lora+prefix_embed",
        "full",
    ]
