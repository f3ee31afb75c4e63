from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis import study
from analysis.studies import rank_ablation
from lora.config import InputError

STUDY = "rank_ablation"


def test_paper_layout_with_intervals_and_the_papers_numbers(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    for weight_types in ("q+v", "q"):
        for r in (1, 64):
            for seed, test in enumerate((0.80, 0.82, 0.84)):
                make_run(r=r, seed=seed, weight_types=weight_types, test=test)
    make_run(r=16, seed=0, weight_types="q", test=0.9)
    list_run(run_id="bad", role="study", error="NaN loss at step 3")
    outputs = rank_ablation.STUDY.build(study_dir, runs_dir)
    assert {path.name for path in outputs} == {"runs.csv", "table.csv", "table.md", "rank_ablation.png"}
    assert all(path.stat().st_size for path in outputs)

    table = pd.read_csv(study_dir / "table.csv")
    ours = table[table["source"] == "ours"].set_index("weight_types")
    assert list(ours.index) == ["q", "q+v"]
    assert [ours.loc["q", name] for name in ("r1", "r1_n", "r16", "r16_n")] == pytest.approx([0.82, 3, 0.9, 1])
    assert ours.loc["q", "r1_interval"] == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-5)
    assert ours["r16_interval"].isna().all()
    assert ours["r16"].isna().to_dict() == {"q": False, "q+v": True}
    paper = table[table["source"] == "paper"].set_index(["task", "weight_types"])
    assert paper.loc[("mnli", "q+v"), "r8"] == pytest.approx(0.916)
    assert len(paper) == 6

    text = (study_dir / "table.md").read_text()
    assert "82.0 ± 5.0 (3)" in text
    assert "| 90.0 (1) " in text
    assert "paper, GPT-3 175B | wikisql" in text
    assert "`bad` failed and is not in the results: NaN loss at step 3" in text
    assert "Learning rates" not in text


def test_learning_rates_say_what_was_chosen_and_where_the_grid_ends(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for weight_types, chosen in (("q", 2e-3), ("q+v", 1e-3)):
        for lr in (5e-4, 1e-3, 2e-3):
            make_run(lr=lr, weight_types=weight_types, validation=0.8 if lr == chosen else 0.7, role="tuning")
        for r in (1, 8):
            make_run(r=r, lr=chosen, weight_types=weight_types, validation=0.8)
    rank_ablation.STUDY.build(study_dir, runs_dir)
    rates = pd.read_csv(study_dir / "learning_rates.csv")
    assert len(rates) == 6
    chosen_rates = rates[rates["chosen"]].set_index("weight_types")
    assert chosen_rates["lr"].to_dict() == {"q": 2e-3, "q+v": 1e-3}
    assert chosen_rates["value"].tolist() == [0.8, 0.8]
    lines = [line for line in (study_dir / "table.md").read_text().splitlines() if "is used" in line]
    assert ["edge of the grid" in line for line in lines] == [True, False]
    assert "0.0005: 70.0, 0.001: 80.0, 0.002: 70.0): **0.001** is used." in lines[1]


def test_a_rate_that_is_not_the_best_of_its_task_is_told(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    for lr, validation in ((5e-4, 0.9), (1e-3, 0.8), (2e-3, 0.7)):
        make_run(lr=lr, validation=validation, role="tuning")
    make_run(lr=1e-3, validation=0.8)
    rank_ablation.STUDY.build(study_dir, runs_dir)
    assert "0.0005 is better for this task alone" in (study_dir / "table.md").read_text()


def test_two_runs_of_one_seed_are_refused(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(lr=1e-3)
    make_run(lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        rank_ablation.STUDY.build(study_dir, runs_dir)


def test_tuning_runs_alone_are_no_ablation(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(role="tuning")
    with pytest.raises(InputError, match="no finished run; `make ablate-rank PRESET=quick` trains them"):
        rank_ablation.STUDY.build(study_dir, runs_dir)


def test_of_equal_rates_it_says_which_was_taken(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    for lr, validation in ((3e-4, 0.8), (1e-3, 0.8), (3e-3, 0.7)):
        make_run(lr=lr, validation=validation, role="tuning")
    make_run(lr=1e-3, validation=0.8)
    rank_ablation.STUDY.build(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert (
        "**0.001** is used. 0.0003 scored the same: of equals the one nearest to the middle of the grid is taken."
        in text
    )
    assert "is better" not in text


def test_the_answer_stands_on_top_and_ends_the_command(
    make_run: Callable[..., str], study_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for r in (1, 8):
        make_run(r=r, test=0.8 + r / 100, validation=0.8 + r / 100)
    for _ in range(2):  # made, and found as it was
        monkeypatch.setattr("sys.argv", ["analysis.study", str(study_dir)])
        assert study.main() == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("rotten_tomatoes (minilm), LoRA on q+v: nothing is decided, one seed tells no rank")
        assert (study_dir / "table.md").read_text().splitlines()[2] == f"> {last}"
