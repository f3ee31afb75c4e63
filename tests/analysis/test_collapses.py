"""Runs that have collapsed: which of a study they are, and that tables, answers and figures count them apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.kit import answer, cells, collapses, figures, tables
from analysis.kit.data import Data
from analysis.maths.statistics import mean_text
from analysis.studies import compare_methods

STUDY = "compare_methods"
FULL = {"name": "full"}
WORDS = {"family": "as_text", "name": "words"}  # a task of a language model, which chooses among words


@pytest.fixture
def say(runs_dir: Path) -> Callable[..., str]:
    """Changes what a run says of itself, and its task's fields."""

    def change(run_id: str, task: dict[str, Any] | None = None, **metrics: Any) -> str:
        for name, more in (("config.yaml", {"task": task or {}}), ("metrics.json", metrics)):
            path = runs_dir / run_id / name
            known = yaml.safe_load(path.read_text())
            new = {"task": known["task"] | more["task"]} if "task" in more else more
            path.write_text(json.dumps(known | new))
        return run_id

    return change


@pytest.fixture
def older(make_run: Callable[..., str], say: Callable[..., str]) -> dict[str, str]:
    """A run that says the share of the commonest class, and older ones, which say nothing: by their names."""
    new = make_run(seed=0, validation=0.9)
    say(new, {"split_seed": 0, "train_examples": 100}, collapsed=False, majority_share=0.6)
    runs = {"near": (1, 0.61, {"split_seed": 0, "train_examples": 50}), "far": (2, 0.63, {"split_seed": 0})}
    runs |= {"other split": (3, 0.61, {"split_seed": 1}), "words": (4, 0.6, {"split_seed": 0} | WORDS)}
    found = {
        name: say(make_run(seed=seed, validation=validation), task) for name, (seed, validation, task) in runs.items()
    }
    return found | {"new": new}


def test_older_runs_are_judged_by_what_others_say_of_their_validation_items(
    older: dict[str, str], say: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    def found() -> dict[str, Any]:
        runs = tables.load_runs(study_dir, runs_dir).drop_duplicates("run_id").set_index("run_id")["collapsed"]
        return {name: runs[run_id] for name, run_id in older.items()}

    assert found() == {"near": True, "far": False, "other split": None, "words": None, "new": False}
    say(older["far"], collapsed=True)  # what a run says itself is so
    say(older["words"], collapsed=True)
    assert found() == {"near": True, "far": True, "other split": None, "words": None, "new": False}
    say(older["new"], majority_share=None)
    assert found() == {"near": None, "far": True, "other split": None, "words": None, "new": False}


def test_what_is_not_known_has_not_collapsed() -> None:
    runs = pd.DataFrame({"value": [0.9, 0.5, 0.5, 0.6], "collapsed": [False, True, None, np.nan]})
    assert collapses.lost(runs).tolist() == [False, True, False, False]
    assert collapses.apart(runs)["value"].isna().tolist() == [False, True, False, False]
    assert not collapses.lost(runs[["value"]]).any()


def test_a_mean_is_of_the_others_and_counts_them() -> None:
    runs = pd.DataFrame({"r": [1, 1, 1, 8, 8], "value": [0.5, np.nan, 0.7, np.nan, np.nan]})
    found = cells.summary(runs, ["r"])
    assert found[["n", "collapsed"]].to_numpy().tolist() == [[2, 1], [0, 2]]
    assert found["mean"].tolist() == pytest.approx([0.6, np.nan], nan_ok=True)
    assert cells.mean_texts(found)[1] == "all 2 collapsed"
    assert cells.mean_texts(found)[0].endswith(" (2; 1 collapsed)")
    wide = cells.wide(found.assign(task="a"), ["task"], "r")
    assert wide[["r1_n", "r8_n", "r1_collapsed", "r8_collapsed"]].iloc[0].tolist() == [2, 0, 1, 2]
    assert cells.wide_texts(wide, "r")["r = 8"] == ["all 2 collapsed"]
    assert mean_text(0.5, np.nan, 2, collapsed=np.nan) == "50.0 (2)"


@pytest.fixture
def compared(make_run: Callable[..., str], say: Callable[..., str]) -> None:
    """Three seeds of LoRA, of which the last has collapsed, and of full fine-tuning, a method that always collapses."""
    for seed, (lora, full) in enumerate(((0.80, 0.70), (0.82, 0.70), (0.50, 0.90))):
        say(make_run(seed=seed, test=lora, validation=lora), collapsed=seed == 2)
        say(make_run(seed=seed, test=full, validation=full, method=FULL, trainable_params=10**6), collapsed=False)
        say(
            make_run(seed=seed, test=0.5, validation=0.5, method={"name": "bitfit"}, trainable_params=10),
            collapsed=True,
        )


@pytest.mark.usefixtures("compared")
def test_tables_and_answers_are_without_them(study_dir: Path, runs_dir: Path) -> None:
    compare_methods.STUDY.build(study_dir, runs_dir)
    table = pd.read_csv(study_dir / "table.csv").set_index("label")
    assert table.loc["lora", ["mean", "n", "collapsed"]].tolist() == pytest.approx([0.81, 2, 1])
    assert table.loc["lora", ["full_difference", "full_pairs"]].tolist() == pytest.approx([0.11, 2])
    assert table.loc["bitfit", ["n", "collapsed", "full_pairs"]].tolist() == [0, 3, 0]
    text = (study_dir / "table.md").read_text()
    assert "4 of 9 runs: 3 of bitfit on rotten_tomatoes, 1 of lora (r=8, q+v)" in text
    assert text.count("`(6; 2 collapsed)`") == 1
    assert "(2; 1 collapsed)" in text and "all 3 collapsed" in text
    runs = pd.read_csv(study_dir / "runs.csv")
    assert runs["value"].notna().all() and runs.drop_duplicates("run_id")["collapsed"].sum() == 4

    (line,) = answer.methods(tables.load_runs(study_dir, runs_dir))
    assert "(2 seeds)" in line  # that LoRA and full fine-tuning share


@pytest.mark.usefixtures("compared")
def test_scores_of_a_study_have_none_of_theirs(study_dir: Path, runs_dir: Path) -> None:
    data = Data(compare_methods.STUDY, study_dir, runs_dir)
    assert data.scores["value"].isna().sum() == 4 and len(data.scores) == 9
    assert data.runs["value"].notna().all()


def test_a_figure_says_that_it_is_without_them() -> None:
    intervals, scores = pd.Series([0.1, 0.2]), pd.Series([0.5, 0.6])
    assert "collapsed" not in figures.interval_note(intervals, scores)
    assert figures.interval_note(intervals, scores.where(scores > 0.5)).endswith("; without collapsed runs")
