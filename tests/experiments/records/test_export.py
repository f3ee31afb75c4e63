"""Runs in the files of trackers, read back by the trackers' own readers."""

import sys
from pathlib import Path

import pytest
from recorded_runs import listed, store

from experiments.records import export
from experiments.records.__main__ import main
from lora.config import InputError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two studies that share one of two runs, and a run of none."""
    folder = tmp_path / "results"
    first, second, _ = (store(folder, seed) for seed in range(3))
    listed(folder / "quick" / "rank_ablation", (first, "study"), (second, "study"))
    listed(folder / "quick" / "subspace", (second, "study"))
    return folder


def test_tensorboard_reads_each_run_once_under_its_id(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    out = tmp_path / "boards"
    assert main(["export", str(results / "quick"), "--to", "tensorboard", "--out", str(out)]) == 0
    assert "2 runs written" in capsys.readouterr().out
    again = ["export", str(results / "runs"), "--to", "tensorboard", "--out", str(out)]
    assert main(again) == 0
    assert "1 runs written" in capsys.readouterr().out
    ids = {path.name for path in (results / "runs").iterdir()}
    read = EventMultiplexer().AddRunsFromDirectory(str(out)).Reload()
    assert set(read.Runs()) == ids and len(ids) == 3
    assert main(again) == 0 and "0 runs written" in capsys.readouterr().out
    for identifier in ids:
        loss = [(one.step, one.value) for one in read.Scalars(identifier, "train/loss")]
        assert loss == [(1, pytest.approx(0.7)), (2, pytest.approx(0.3))]
        assert read.Scalars(identifier, "final/test/accuracy")[0].value == pytest.approx(0.8)
        raw = read.SummaryMetadata(identifier, metadata.SESSION_START_INFO_TAG).plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(raw).session_start_info
        assert start.hparams["method.name"].string_value == "lora"
        assert start.hparams["training.lr"].number_value == 1e-5


def test_wandb_writes_offline(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = tmp_path / "tracked"
    run = next(export.runs_in(results / "quick"))
    assert export.to_wandb(run, out) and not export.to_wandb(run, out)
    (folder,) = (out / "wandb").glob(f"offline-run-*-{run.run_id}")
    assert (folder / f"run-{run.run_id}.wandb").stat().st_size > 500


def test_what_cannot_be_is_one_line(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    line = ["export", str(tmp_path / "empty"), "--to", "tensorboard", "--out", str(tmp_path / "boards")]
    assert main(line) == 2
    assert "empty has no runs: give results/<preset>" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"needs the package tensorboard .*lora-lab\[trackers\]"):
        export.to_tensorboard(next(export.runs_in(results / "runs")), tmp_path / "boards")
    (run,) = export.runs_in(results / "quick" / "subspace")
    (results / "runs" / run.run_id / "history.csv").write_text("step,split\nx,train\n")
    with pytest.raises(InputError, match="is damaged"):
        export.curve(run)
