"""What truncation keeps, from made-up runs and scores."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from measured_files import write

from analysis.study import run_study
from experiments.measure.schemas import TRUNCATION
from lora.config import InputError

STUDY = "truncation"
Train = Callable[..., str]


@pytest.fixture
def runs(train: Train) -> dict[tuple[int, int], str]:
    """(r, seed) -> run_id; r = 0 is full fine-tuning."""
    found = {(4, seed): train(r=4, seed=seed) for seed in (0, 1)}
    return found | {(0, seed): train(seed=seed, full=True) for seed in (0, 1)}


def truncation(runs: dict[tuple[int, int], str]) -> pd.DataFrame:
    """As experiments.measure.truncation writes it: full fine-tuning needs 2 directions, LoRA has no effect."""
    rows = []
    for (r, _), run_id in runs.items():
        whole = r or 32
        for k in [k for k in (0, 1, 2, 4) if k < whole] + [whole]:
            accuracy = 0.9 if r else (0.5 if k < 2 else 0.9)
            scores = {("test", "accuracy"): accuracy, ("test", "loss"): 1.0, ("update", "energy"): k / whole}
            rows += [(run_id, k, *key, value) for key, value in scores.items()]
    return pd.DataFrame(rows, columns=["run_id", "k", "split", "metric", "value"])


def test_every_file_is_written_and_right(runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path) -> None:
    write(truncation(runs), study_dir, TRUNCATION)
    outputs = {path.name for path in run_study(study_dir, runs_dir)}
    assert outputs == {"runs.csv", "table.csv", "table.md", "truncation.png", "provenance.json"}
    assert (study_dir / "truncation.png").stat().st_size > 5000
    table = pd.read_csv(study_dir / "table.csv")
    full = table[table["run_id"] == runs[0, 1]].set_index("k")
    assert full["effect"].to_dict() == {0: 0, 1: 0, 2: 1, 4: 1, 32: 1} and full["energy"][4] == 4 / 32
    assert table.loc[table["run_id"] == runs[4, 0], "effect"].isna().all()
    text = (study_dir / "table.md").read_text()
    assert "95% of what the update does to test accuracy on rotten_tomatoes (minilm) is kept from:" in text
    assert "full k = 2 (seeds: 2, 2)" in text and "r=4 no effect" in text


@pytest.mark.parametrize("damage", ["cut", "lacks"])
def test_a_truncation_file_that_does_not_fit(
    damage: str, runs: dict[tuple[int, int], str], study_dir: Path, runs_dir: Path
) -> None:
    rows = truncation(runs)
    path = study_dir / "truncation.csv"
    write(rows[rows["run_id"] != runs[0, 0]], study_dir, TRUNCATION)
    if damage == "cut":
        path.write_text(path.read_text()[:-30])
    with pytest.raises(InputError, match="damaged" if damage == "cut" else "lacks 1 runs of the study"):
        run_study(study_dir, runs_dir)
