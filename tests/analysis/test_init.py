import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from analysis.studies.init import study as init
from analysis.study import run_study
from experiments.records.schema import Record
from lora.config import InputError

STUDY = "init"
STEPS = 40
Start = Callable[..., str]


@pytest.fixture
def make_start(make_run: Callable[..., str], runs_dir: Path) -> Start:
    """A run from a start, with its history: the loss falls linearly from 1 to `end`."""

    def make(
        start: str, seed: int = 0, end: float = 0.5, test: float = 0.8, entry: float = 0.0, lr: float = 1e-3
    ) -> str:
        method = {"name": "lora", "r": 2, "alpha": 4, "weight_types": "q", "init": start}
        run_id = make_run(method=method, seed=seed, test=test, lr=lr)
        rows = pd.DataFrame({"step": range(1, STEPS + 1), "split": "train", "loss": np.linspace(1, end, STEPS)})
        validation = pd.DataFrame({"step": [STEPS], "split": "validation", "loss": 9.0, "metric": 0.7})
        pd.concat([rows, validation]).to_csv(runs_dir / run_id / "history.csv", index=False)
        folder = runs_dir / run_id / "adapter"
        folder.mkdir(exist_ok=True)
        target = {"module": "layer.0.query", "weight_type": "q", "layer": 0, "r": 2, "scaling": 2.0, "shape": (4, 6)}
        content = {"format": 1, "targets": [target | {"w0_norm": 1.0}], "trained_parameters": []}
        (folder / "lora_config.json").write_text(json.dumps(content))
        a = torch.zeros(2, 6)
        a[1, 3] = -entry
        save_file(
            {"layer.0.query.q.lora_A": a, "layer.0.query.q.lora_B": torch.zeros(4, 2)}, folder / "adapter.safetensors"
        )
        return run_id

    return make


def test_every_start_has_its_losses_and_scores(
    make_start: Start, list_run: Callable[..., None], study_dir: Path, runs_dir: Path
) -> None:
    for place, start in enumerate(reversed(init.STARTS)):
        for seed in range(3):
            make_start(start, seed, end=0.5 + 0.01 * place + 0.02 * seed, test=0.8 - 0.01 * place + 0.01 * seed**2)
    list_run(run_id="method.init=pissa", role="study", error="the loss is nan")
    outputs = run_study(study_dir, runs_dir)
    names = {"runs.csv", "table.csv", "losses.csv", "loss_curves.csv", "saddle.csv", "table.md", "init.png"}
    names |= {"provenance.json"}
    assert {path.name for path in outputs} == names
    assert all(path.stat().st_size for path in outputs)
    table = pd.read_csv(study_dir / "table.csv").set_index("init")
    assert list(table.index) == list(init.STARTS)
    assert (table["n"] == 3).all() and (table["first_loss"] == 1).all()
    last = [np.linspace(1, 0.5 + 0.02 * seed, STEPS)[-4:].mean() for seed in range(3)]
    assert table.loc["lora_ga", "final_loss"] == pytest.approx(np.mean(last), rel=1e-5)
    assert table.loc["lora_ga", "test"] == pytest.approx(0.8 + 0.05 / 3, rel=1e-5)
    assert table.loc["pissa", "test_interval"] == pytest.approx(
        4.302653 * np.std([0, 1, 4], ddof=1) / 100 / 3**0.5, rel=1e-5
    )
    assert table.loc["lora_ga", "difference"] == pytest.approx(0.07)
    assert table["difference"].isna().to_dict() == {start: start == "gaussian" for start in init.STARTS}
    text = (study_dir / "table.md").read_text()
    assert "A = B = 0 stayed at the saddle: **yes**" in text and "n = 3, is 0; only the head was trained." in text
    assert "`method.init=pissa` failed and is not in the results" in text


def test_leaving_the_saddle_is_told(make_start: Start, study_dir: Path, runs_dir: Path) -> None:
    make_start("both_zero", 0)
    make_start("both_zero", 1, entry=1e-30)
    run_study(study_dir, runs_dir)
    text = (study_dir / "table.md").read_text()
    assert "stayed at the saddle: **no**. The largest entry of A and B after training, n = 2, is 1e-30." in text
    assert pd.read_csv(study_dir / "table.csv")["largest_entry"].tolist() == pytest.approx([1e-30])


def test_curves_are_smoothed_means_with_the_range_over_seeds(
    make_start: Start, study_dir: Path, runs_dir: Path
) -> None:
    for seed, end in enumerate((0.2, 0.4, 0.9)):
        make_start("gaussian", seed, end=end)
    run_study(study_dir, runs_dir)
    curves = pd.read_csv(study_dir / "loss_curves.csv").set_index("step")
    assert list(curves.index) == list(range(1, STEPS + 1))
    # A straight line is its own running mean, away from its ends; the window of 4 is centred half a step early.
    middle = [np.interp(19.5, range(1, STEPS + 1), np.linspace(1, end, STEPS)) for end in (0.2, 0.4, 0.9)]
    assert curves.loc[20, ["mean", "low", "high"]].tolist() == pytest.approx([np.mean(middle), *middle[::2]], rel=1e-3)
    assert "to gaussian" in (study_dir / "table.md").read_text()


def test_tables_need_no_history_and_no_adapter_once_these_are_measured(
    make_start: Start, study_dir: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [make_start(start, seed, end=0.5 + seed / 10) for start in ("gaussian", "both_zero") for seed in range(2)]
    run_study(study_dir, runs_dir)
    before = {path.name: path.read_text() for path in study_dir.iterdir() if path.suffix in (".csv", ".md")}
    for run_id in ids:  # what unpacking a record without a history leaves
        folder = runs_dir / run_id
        config, metrics = (folder / "config.yaml").read_text(), json.loads((folder / "metrics.json").read_text())
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "config.yaml").write_text(config)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "record.json").write_text(Record(run_id, (), yaml.safe_load(config), metrics).line())
    run_ids = {json.dumps(yaml.safe_load((runs_dir / one / "config.yaml").read_text())): one for one in ids}
    monkeypatch.setattr("experiments.records.schema.identify", lambda config: run_ids[json.dumps(config)])
    run_study(study_dir, runs_dir)
    after = {path.name: path.read_text() for path in study_dir.iterdir() if path.suffix in (".csv", ".md")}
    assert after == before
    losses = study_dir / "losses.csv"
    losses.write_text(losses.read_text().replace(ids[0], "0123456789ab"))
    with pytest.raises(InputError, match=r"has no history here, and .*losses.csv is not of the same runs"):
        run_study(study_dir, runs_dir)
    losses.unlink()
    with pytest.raises(InputError, match=r"has no history here, and .*losses.csv .* is missing or damaged"):
        run_study(study_dir, runs_dir)


@pytest.mark.parametrize("damage", ["gone", "empty", "columns"])
def test_a_damaged_history_is_one_line(damage: str, make_start: Start, study_dir: Path, runs_dir: Path) -> None:
    path = runs_dir / make_start("gaussian") / "history.csv"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text({"empty": "step,split,loss\n", "columns": "step,loss\n1,0.5\n"}[damage])
    with pytest.raises(InputError, match=r"history.csv is missing or damaged .*`make .* PRESET=quick`") as caught:
        run_study(study_dir, runs_dir)
    assert "\n" not in str(caught.value)


def test_a_missing_adapter_of_both_zero_is_an_error(make_start: Start, study_dir: Path, runs_dir: Path) -> None:
    (runs_dir / make_start("both_zero") / "adapter" / "adapter.safetensors").unlink()
    with pytest.raises(InputError, match="adapter.safetensors does not exist"):
        run_study(study_dir, runs_dir)


def test_other_methods_and_settings_are_refused(
    make_start: Start, make_run: Callable[..., str], study_dir: Path, runs_dir: Path
) -> None:
    make_start("gaussian")
    make_start("gaussian", lr=2e-3)
    with pytest.raises(InputError, match="same seed with different settings"):
        run_study(study_dir, runs_dir)
    make_run(method={"name": "bitfit"})
    with pytest.raises(InputError, match="of bitfit, which is no start"):
        run_study(study_dir, runs_dir)
