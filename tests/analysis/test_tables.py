import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.kit import tables
from experiments.records.source import Runs
from lora.config import InputError

STUDY = "rank_ablation"


def test_load_runs_is_tidy_and_joins_roles(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    both = make_run(r=8, role="tuning", test=0.75)
    make_run(r=8, role="study", test=0.75)
    make_run(r=1, lr=5e-4)
    runs = tables.load_runs(study_dir, runs_dir)
    assert list(runs.columns) == [*tables.RUNS_COLUMNS, "main", "watched", "test_rows", *tables.ABOUT]
    assert len(runs) == 2 * 4  # two runs x (two splits x two metrics)
    row = runs[(runs["run_id"] == both) & runs["main"] & (runs["split"] == "test")].iloc[0]
    assert (row["role"], row["value"], row["weight_types"], row["lr"]) == ("study+tuning", 0.75, "q+v", 1e-3)
    assert set(tables.in_role(runs, "tuning")["run_id"]) == {both}
    assert tables.in_role(runs, "study")["run_id"].nunique() == 2


def test_rate_without_a_dot_is_read_as_a_number(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    path = runs_dir / make_run() / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 1e-3"))
    assert tables.load_runs(study_dir, runs_dir)["lr"].unique() == [1e-3]


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_missing_or_empty_list_names_the_command(content: str | None, study_dir: Path, runs_dir: Path) -> None:
    if content is not None:
        (study_dir / "sweep.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"make ablate-rank PRESET=quick"):
        tables.load_runs(study_dir, runs_dir)


def test_damaged_list_says_which_line(make_run: Callable[..., str], study_dir: Path) -> None:
    make_run()
    with (study_dir / "sweep.jsonl").open("a") as file:
        file.write('{"run_id": "abc", "ro')
    with pytest.raises(InputError, match="line 2 is damaged"):
        tables.read_sweep(study_dir)


def test_missing_run_names_run_and_command(list_run: Callable[..., None], study_dir: Path, runs_dir: Path) -> None:
    list_run(run_id="0123456789ab", role="study")
    with pytest.raises(InputError, match=r"run 0123456789ab .*`make ablate-rank PRESET=quick` trains it"):
        tables.load_runs(study_dir, runs_dir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", '{"cut'),
        ("metrics.json", "[]"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "seed: 0"),
        ("config.yaml", None),
    ],
)
def test_damaged_run_is_one_clear_line(
    name: str, content: str | None, make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    path = runs_dir / make_run() / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="is damaged") as caught:
        tables.load_runs(study_dir, runs_dir)
    assert "\n" not in str(caught.value)


def test_failed_runs_are_kept_and_a_later_success_clears_them(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path
) -> None:
    run_id = make_run()
    list_run(run_id=run_id, role="study", error="killed")
    make_run()
    list_run(run_id="bad", role="study", error="NaN loss\nat step 3")
    sweep = tables.read_sweep(study_dir)
    assert sweep.roles == {run_id: {"study"}}
    assert tables.failure_lines(sweep.failed) == ["- Run `bad` failed and is not in the results: NaN loss at step 3"]


def test_failed_runs_are_named_where_the_runner_kept_their_config(
    make_run: Callable[..., str], list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    make_run()
    assert tables.load_failed(study_dir, runs_dir).empty
    known = make_run(seed=3, lr=1e-2, method={"name": "bitfit"}, error="loss is nan")
    list_run(run_id="task=glue/sst2 " + 300 * "x", role="study", error="no such task")
    failed = tables.load_failed(study_dir, runs_dir)
    assert failed.to_dict("records") == [
        {
            "run_id": known,
            "model": "minilm",
            "task": "rotten_tomatoes",
            "label": "bitfit",
            "settings": "",
            "lr": 1e-2,
            "seed": 3,
        }
    ]
    lines = tables.failure_lines(tables.read_sweep(study_dir).failed, failed)
    assert lines[0] == (
        f"- Run `{known}` (bitfit on rotten_tomatoes, lr 0.01, seed 3) failed and is not in the results: loss is nan"
    )
    assert lines[1].endswith("x` failed and is not in the results: no such task")


def test_methods_are_told_apart(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run()
    make_run(method={"name": "lora", "r": 4, "alpha": 16, "weight_types": "q", "dora": True})
    make_run(method={"name": "adapter_h", "bottleneck": 8})
    runs = tables.load_runs(study_dir, runs_dir).drop_duplicates("run_id")
    assert runs["method"].tolist() == ["lora", "lora", "adapter_h"]
    assert runs["label"].tolist() == ["lora", "dora", "adapter_h"]
    assert runs["settings"].tolist() == ["r=8, q+v", "r=4, q", "bottleneck=8"]


def test_parameters_without_the_head(make_run: Callable[..., str], study_dir: Path, runs_dir: Path) -> None:
    make_run(trainable_params=1500)
    make_run(trainable_params=1900, task="reuters_r8")
    make_run(trainable_params=500, method={"name": "head_only"})
    runs = tables.load_runs(study_dir, runs_dir)
    main = runs[runs["main"] & (runs["split"] == "test")]
    assert tables.without_head(main).tolist() == pytest.approx([1000, np.nan, 0], nan_ok=True)


def test_only_failures_is_an_error_that_says_why(list_run: Callable[..., None], study_dir: Path) -> None:
    list_run(run_id="bad", role="study", error="NaN loss at step 3")
    with pytest.raises(InputError, match="no finished run .*NaN loss at step 3"):
        tables.read_sweep(study_dir)


def test_interval_is_student_t_and_one_value_has_none() -> None:
    values = [0.8, 0.82, 0.79]
    frame = pd.DataFrame({"cell": ["b", "b", "b", "a"], "value": [*values, 0.5]})
    table = tables.summarise(frame, ["cell"]).set_index("cell")
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert table.loc["b", "mean"] == pytest.approx(np.mean(values))
    assert table.loc["b", "interval"] == pytest.approx((high - low) / 2)
    assert table["n"].to_dict() == {"b": 3, "a": 1}
    assert table["interval"].isna().to_dict() == {"b": False, "a": True}


def test_provenance_has_versions_and_the_machines_of_the_trainings(
    make_run: Callable[..., str], study_dir: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.orig_argv", [str(Path("bin/python").absolute()), "-m", "analysis.study", "results/desk"])
    for seed in range(2):
        make_run(seed=seed)
    record = tables.provenance(Runs(study_dir, runs_dir))
    assert record["command"] == "bin/python -m analysis.study results/desk"
    assert {"torch", "transformers"} <= record["versions"].keys()
    assert record["trainings"] == [{"machine": {"cpus": 2}, "versions": {"torch": "2"}, "precision": "fp32"}]
    json.dumps(record)
