"""The study of the advice: who is judged, and what its pages say of made-up runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from analysis.advise import study
from analysis.advise.study import ADVICE, contenders, draw, gathered, report, rule, summary
from analysis.advise.subject import Subject


def made_up(regrets: dict[str, list[float]], predicted: float = 0.8) -> pd.DataFrame:
    rows = [
        {"model": "tiny", "task": task, "contender": name, "swept": False, "seed": seed, "setting": "r = 1 on q"}
        | {"parameters": 100, "run_id": "x", "validation": 0.8, "value": 0.8, "regret": value, "best": "sweep: r = 4"}
        | {"predicted": predicted, "cost": 0.2, "metric": "accuracy"}
        for task in ("reviews", "news")
        for name, values in regrets.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_rule_by_data_size() -> None:
    assert [rule(n) for n in (999, 1000, 9999, 10_000, 99_999, 100_000)] == [8, 16, 16, 32, 32, 64]


def test_who_is_judged(subject_of: Callable[..., Subject]) -> None:
    subject = subject_of("bert")
    advice = {"ranks": {"q": 2}, "lr": 1e-3, "largest": dict.fromkeys(subject.units, 16), "train_examples": 4000}
    found = {one.name: one for one in contenders(subject, advice, "desk")}
    assert found[ADVICE].ranks == {"q": 2} and found[ADVICE].lr == 1e-3
    assert found["r = 8 on q v"].ranks == {"q": 8, "v": 8} and found["r = 8 on q v"].lr == "tuned"
    assert found["rank by data size, on q v"].ranks == {"q": 16, "v": 16}
    assert set(found["r = 16 on all types"].ranks) == set(subject.units)
    swept = [one for one in found.values() if one.swept]
    assert len(swept) == 2 * 2 and max(max(one.ranks.values()) for one in swept) == 8  # 64 is beyond the largest


def test_the_page_and_the_picture(tmp_path: Path) -> None:
    table = made_up({ADVICE: [0.001, 0.002, 0.003], "r = 8 on q v": [0.02, 0.02, 0.05]})
    means = summary(table).set_index(["task", "contender"])["mean"]
    assert means["news", ADVICE] == pytest.approx(0.002) and means["news", "r = 8 on q v"] == pytest.approx(0.03)
    page = report(table)
    assert "0.2 ± 0.2 (3)" in page and "20%" in page and "by more than a point: nowhere" in page
    assert "by more than a point: reviews (tiny), news (tiny)" in report(made_up({ADVICE: [0.0, 0.1]}, predicted=0.7))
    picture = imread(draw(table, tmp_path / "regret.png"))[..., :3]
    assert (picture.min(axis=-1) < 0.9).mean() > 0.005  # more than an empty page


def test_a_place_that_is_judged_alone_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    old, path = made_up({ADVICE: [0.01, 0.02]}), tmp_path / "regret.csv"
    reviews = made_up({ADVICE: [0.05, 0.06]}).query("task == 'reviews'")
    pd.testing.assert_frame_equal(gathered(path, [reviews]), reviews.reset_index(drop=True))
    old.to_csv(path, index=False)
    found = gathered(path, [reviews]).set_index(["task", "seed"])["regret"]
    assert found.to_dict() == {("news", 0): 0.01, ("news", 1): 0.02, ("reviews", 0): 0.05, ("reviews", 1): 0.06}


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--preset", "huge", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: --preset huge: there are smoke, quick, desk\n"
    assert study.main(["--model", "minilm", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: give MODEL and TASK, or neither\n"


def test_the_advice_is_judged_by_runs_that_it_has_not_seen(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    few = ["task.train_examples=64", "task.validation_examples=24", "method.weight_types=q+v"]
    few += ["engine.jobs=1", "runtime.threads=1"]
    one_rate = ["tuning.lr_grid=[3e-2]", "tuning.extend=0", "tuning.seeds=[1000]"]
    place = ["--model", str(encoder), "--task", str(reviews), "--preset", "smoke", "--results", str(tmp_path)]
    assert study.main([*place, *few, *one_rate]) == 0
    table = pd.read_csv(tmp_path / "smoke" / "advice-study" / "regret.csv")
    best = table["best"].iloc[0]
    assert (table.loc[table["contender"] == best, "regret"] == 0).all()
    means = table[table["swept"]].groupby("contender")["validation"].mean()
    assert best.startswith("sweep: ") and means[best] == means.max()
    assert set(table["seed"]) == {0, 1} and table["value"].between(0, 1).all()
    reference = table["seed"].map(table[table["contender"] == best].set_index("seed")["value"])
    pd.testing.assert_series_equal(table["regret"], reference - table["value"], check_names=False, check_dtype=False)
    advice = json.loads((tmp_path / "smoke" / "advice" / "tiny_reviews" / "advice.json").read_text())
    assert not set(advice["runs"]) & set(table["run_id"])
    assert table["validation"].between(0, 1).all(), "accuracies, as the advice predicts one"
    paths = {path.parent.name: path for path in tmp_path.glob("runs/[!.]*/metrics.json")}
    seconds = {run_id: json.loads(path.read_text())["train_seconds"] for run_id, path in paths.items()}
    swept = set(table.loc[table["swept"], "run_id"])  # and the runs that chose their rates
    others = seconds.keys() - set(advice["runs"]) - set(table["run_id"])
    least, most = sum(seconds[run] for run in swept), sum(seconds[run] for run in swept | others)
    assert advice["spent_seconds"] / most <= table["cost"].iloc[0] * 1.001
    assert table["cost"].iloc[0] * 0.999 <= advice["spent_seconds"] / least
    assert (tmp_path / "smoke" / "advice-study" / "table.md").read_text().startswith("# The advice beside a sweep")
