"""Runs in the files of trackers, stored ones and one that is being trained, read back by the trackers' own readers."""

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Cli
from recorded_runs import listed, store

from experiments import trackers
from experiments.history import History
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


def boards(out: Path) -> Any:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    return EventMultiplexer().AddRunsFromDirectory(str(out)).Reload()


def read(out: Path, run_id: str) -> dict[str, list[tuple[int, float]]]:
    shown = boards(out)
    return {
        tag: [(one.step, one.value) for one in shown.Scalars(run_id, tag)] for tag in shown.Runs()[run_id]["scalars"]
    }


def settings(out: Path, run_id: str) -> dict[str, Any]:
    """A run's settings, as TensorBoard's tab of them reads them."""
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    raw = boards(out).SummaryMetadata(run_id, metadata.SESSION_START_INFO_TAG).plugin_data.content
    return dict(plugin_data_pb2.HParamsPluginData.FromString(raw).session_start_info.hparams)


def test_tensorboard_reads_each_run_once_under_its_id(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "boards"
    assert main(["export", str(results / "quick"), "--to", "tensorboard", "--out", str(out)]) == 0
    assert "2 runs written" in capsys.readouterr().out
    again = ["export", str(results / "runs"), "--to", "tensorboard", "--out", str(out)]
    assert main(again) == 0
    assert "1 runs written" in capsys.readouterr().out
    ids = {path.name for path in (results / "runs").iterdir()}
    assert set(boards(out).Runs()) == ids and len(ids) == 3
    assert main(again) == 0 and "0 runs written" in capsys.readouterr().out
    for identifier in ids:
        scalars = read(out, identifier)
        assert scalars["train/loss"] == [(1, pytest.approx(0.7)), (2, pytest.approx(0.3))]
        assert scalars["final/test/accuracy"] == [(2, pytest.approx(0.8))]
        known = settings(out, identifier)
        assert known["method.name"].string_value == "lora"
        assert known["training.lr"].number_value == 1e-5


def test_a_run_that_is_trained_is_told_row_by_row_and_as_it_would_be_exported(
    cli: Cli, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    results = tmp_path / "results"
    seen: list[int] = []
    append = History.append

    def watched(history: History, row: dict[str, Any]) -> None:
        append(history, row)
        (begun,) = (path.name for path in (results / "tensorboard").glob("[!.]*"))
        seen.append(len(read(results / "tensorboard", begun)["train/loss"]))

    monkeypatch.setattr(History, "append", watched)
    assert cli(*tiny, "tracker=tensorboard").code == 0
    (folder,) = (results / "runs").glob("[!.]*")
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    assert seen == steps and steps[-1] > 1, "after a step its row could be read"

    (run,) = export.runs_in(results / "runs")
    assert export.export(run, "tensorboard", tmp_path / "boards")
    assert not export.export(run, "tensorboard", results / "tensorboard"), "it is there"
    live = read(results / "tensorboard", run.run_id)
    assert live == read(tmp_path / "boards", run.run_id)
    assert {"train/loss", "train/lr", "validation/metric", "final/test/accuracy"} <= set(live)
    assert settings(results / "tensorboard", run.run_id) == settings(tmp_path / "boards", run.run_id)


def test_a_tracker_is_no_part_of_a_run(cli: Cli, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*tiny).code == 0
    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    again = cli(*tiny, "tracker=tensorboard")
    assert again.code == 0 and again.out.rstrip().endswith("(stored)")


def test_what_was_cut_off_is_told_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def cut_off() -> None:
        with trackers.tracking("tensorboard", tmp_path, "a", {"seed": 0}) as tracker:
            tracker.log(1, {"train/loss": 3.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert read(tmp_path, "a") == {"train/loss": [(1, 3.0)]}
    assert not trackers.told(tmp_path, "a")
    with trackers.tracking("tensorboard", tmp_path, "a", {"seed": 0}) as tracker:
        tracker.log(1, {"train/loss": 2.0})
    assert read(tmp_path, "a") == {"train/loss": [(1, 2.0)]}
    assert trackers.told(tmp_path, "a")


def logged(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: LevelDB's log format, in one block, after a header of its own."""
    assert content[:4] == b":W&B" and len(content) < 2**15
    place = 7
    while place < len(content):
        _, length, kind = struct.unpack_from("<IHB", content, place)
        assert kind == 1, "a record that is whole"
        yield content[place + 7 : place + 7 + length]
        place += 7 + length


def test_wandb_writes_offline(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    out = tmp_path / "tracked"
    run = next(export.runs_in(results / "quick"))
    assert export.export(run, "wandb", out) and not export.export(run, "wandb", out)
    (folder,) = (out / "wandb").glob(f"offline-run-*-{run.run_id}")
    records = [Record.FromString(data) for data in logged((folder / f"run-{run.run_id}.wandb").read_bytes())]
    rows = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(1, 0.7), (2, 0.30000000000000004)]
    (begun,) = (record.run for record in records if record.HasField("run"))
    assert begun.run_id == run.run_id
    assert {item.key: item.value_json for item in begun.config.update}["training.lr"] == "0.00001"


@pytest.mark.parametrize(("tracker", "asked"), [("tensorboard", r"lora-lab\[trackers\]"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_one_line_before_anything_begins(
    tracker: str, asked: str, results: Path, cli: Cli, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    said = f"tracker {tracker} needs a package that is not installed: pip install '{asked}'"
    with pytest.raises(InputError, match=said):
        export.export(next(export.runs_in(results / "runs")), tracker, tmp_path / "boards")
    runs = set((results / "runs").iterdir())
    done = cli(*tiny, f"tracker={tracker}")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err == f"error: {said}\n".replace("\\", "")
    assert set((results / "runs").iterdir()) == runs
    assert "tensorboard, wandb, or null" in cli(*tiny, "tracker=tensorbord").err


def test_what_cannot_be_is_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    line = ["export", str(tmp_path / "empty"), "--to", "tensorboard", "--out", str(tmp_path / "boards")]
    assert main(line) == 2
    assert "empty has no runs: give results/<preset>" in capsys.readouterr().err
    (run,) = export.runs_in(results / "quick" / "subspace")
    (results / "runs" / run.run_id / "history.csv").write_text("step,split\nx,train\n")
    with pytest.raises(InputError, match="is damaged"):
        export.curve(run)
