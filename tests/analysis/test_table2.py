from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from analysis.studies import table2
from lora.config import InputError

STUDY = "table2"


def rename(run: Path, model: str) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["name"] = model
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_each_model_beside_the_papers_number(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    for task, lr, scores in (("rte", 5e-4, (0.80, 0.81, 0.88)), ("mnli", 1e-4, (0.9,)), ("reuters_r8", 1e-3, (0.7,))):
        for seed, test in enumerate(scores):
            run = make_run(task=task, lr=lr, seed=seed, test=test)
            rename(runs_dir / run, "deberta-v2-xxlarge" if task == "mnli" else "roberta-base")
    list_run(run_id="bad", role="study", error="NaN loss at step 3")
    assert [path.name for path in table2.STUDY.build(study_dir, runs_dir)] == ["runs.csv", "table.csv", "table.md"]

    table = pd.read_csv(study_dir / "table.csv").set_index(["model", "task"])
    rte = table.loc[("roberta-base", "rte")]
    assert [rte[name] for name in ("mean", "median", "n", "paper")] == pytest.approx([0.83, 0.81, 3, 86.6])
    assert rte["interval"] == pytest.approx(4.302653 * 0.0435890 / 3**0.5, rel=1e-5)
    assert table.loc[("deberta-v2-xxlarge", "mnli"), "paper"] == 91.9
    assert pd.isna(table.loc[("roberta-base", "reuters_r8"), "paper"])

    text = (study_dir / "table.md").read_text()
    assert "## roberta-base" in text and "## deberta-v2-xxlarge" in text
    assert "| 83.0 ± 10.8 (3) | 81.0" in text
    assert "| 91.9 " in text
    assert "`bad` failed and is not in the results: NaN loss at step 3" in text


def test_two_runs_of_a_seed_are_an_error(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(lr=1e-3)
    make_run(lr=3e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        table2.STUDY.build(study_dir, runs_dir)


def test_an_unfinished_study_is_an_error(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(role="tuning")
    with pytest.raises(InputError, match="no finished run; `make table2 PRESET=quick` trains them"):
        table2.STUDY.build(study_dir, runs_dir)
