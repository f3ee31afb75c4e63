"""MNLI has two test sets; the paper reports the accuracy over both."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.studies import table2
from experiments import tasks

Cli = Callable[..., Any]  # conftest.cli
NAMES = ("entailment", "neutral", "contradiction")
TASK: dict[str, Any] = {
    **{"name": "mnli", "family": "glue", "subset": "mnli", "metric": "accuracy", "split_seed": 0, "max_length": 32},
    **{"train_examples": None, "validation_examples": None, "test_examples": None},
}


@pytest.fixture
def folder(corpora: Path, tmp_path: Path) -> Path:
    """MNLI's files, with 12 rows in the mismatched set."""
    mine = Path(shutil.copytree(corpora / "mnli", tmp_path / "MNLI"))
    (mine / "dev.tsv").rename(mine / "dev_matched.tsv")
    rows = [f"He says {i}.\tHe speaks.\t{NAMES[i % 3]}" for i in range(12)]
    (mine / "dev_mismatched.tsv").write_text("\n".join(["sentence1\tsentence2\tgold_label", *rows]) + "\n")
    return mine


def test_both_sets_are_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tasks.load({**TASK, "data_dir": str(folder), "test_examples": 10})
    assert isinstance(data, tasks.TaskData) and data.second_test is not None
    assert (len(data.test), len(data.second_test)) == (8, 10)
    assert all(row["text"].startswith("He says") for row in data.second_test) and not caplog.messages


def test_a_folder_without_it_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "dev_mismatched.tsv").unlink()
    with caplog.at_level(logging.WARNING):
        data = tasks.load({**TASK, "data_dir": str(folder)})
    assert isinstance(data, tasks.TaskData) and data.second_test is None
    assert caplog.messages == [f"{folder}/dev_mismatched.tsv is not there: scores are of dev_matched.tsv alone"]


def test_a_run_reports_matched_mismatched_and_overall(cli: Cli, tiny: list[str], folder: Path, tmp_path: Path) -> None:
    own = [part for part in tiny if not part.startswith("task")]
    assert cli(*own, "task=glue/mnli", f"task.data_dir={folder}").code == 0
    (file,) = (tmp_path / "results" / "runs").glob("[!.]*/metrics.json")
    content = json.loads(file.read_text())
    test = {row["metric"]: row["value"] for row in content["metrics"] if row["split"] == "test"}
    assert content["main_metric"] == "accuracy"  # of the matched set, as in runs before there was another
    assert set(test) == {"loss", "accuracy", "accuracy_mismatched", "accuracy_overall"}
    assert test["accuracy_overall"] == pytest.approx((8 * test["accuracy"] + 12 * test["accuracy_mismatched"]) / 20)
    assert not [row for row in content["metrics"] if row["split"] == "validation" and "_" in row["metric"]]


def test_table_2_has_the_papers_number() -> None:
    rows = [
        ("a", "accuracy", 0.8, True),
        ("a", "accuracy_mismatched", 0.6, False),
        ("a", "accuracy_overall", 0.7, False),
    ]
    rows += [("b", "accuracy", 0.9, True), ("c", "f1", 0.5, True), ("c", "accuracy_overall", 0.1, False)]
    test = pd.DataFrame(rows, columns=["run_id", "metric", "value", "main"])
    assert list(table2.scored(test)["value"]) == [0.7, 0.9, 0.5]
