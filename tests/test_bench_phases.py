"""The benchmark of a run's phases: every phase is timed, none twice, and a run is left as it was."""

import itertools
import resource
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from bench import phase_clock, phases
from bench.phase_clock import REST, START
from experiments import assets, tasks
from experiments.config import RunConfig

SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PHASES = ["data", "weights", "tokenize", "adapt", "train", "evaluate validation", "evaluate test", "save"]


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor whose clock goes on by 1 s whenever it is read."""
    monkeypatch.setattr(time, "process_time", itertools.count(1.0).__next__)
    monkeypatch.setattr(resource, "getrusage", lambda _: type("", (), {"ru_utime": 0.0, "ru_stime": 0.0}))


@pytest.mark.usefixtures("seconds")
def test_a_phase_within_another_is_counted_once() -> None:
    clock = phase_clock.Clock()
    with clock.phase("outer"), clock.phase("inner"):
        pass
    assert clock.timed(lambda _, split: split, "evaluate {1}")(None, "test") == "test"
    clock.tick()
    assert clock.seconds == {START: 3.0, "outer": 2.0, "inner": 1.0, "evaluate test": 1.0}


@pytest.mark.usefixtures("seconds")
@pytest.mark.parametrize("name", ["minilm", "e2e"])
def test_all_phases_of_both_runs_are_timed(
    name: str, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset, network = {
        "minilm": ("minilm", BertForSequenceClassification(BertConfig(vocab_size=30522, **SIZES))),
        "e2e": ("smollm2", LlamaForCausalLM(LlamaConfig(vocab_size=49152, eos_token_id=2, **SIZES))),
    }[name]
    network.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(assets.fetch(asset)).save_pretrained(tmp_path / "model")
    sizes = [f"task.{split}_examples=4" for split in tasks.SPLITS]
    settings = [*phases.SETTINGS[name], f"model.path={tmp_path}/model", *sizes]
    monkeypatch.setitem(phases.SETTINGS, name, settings)
    given = phases.configs(name, corpora / "e2e", f"{tmp_path}/results")
    assert [config["seed"] for config in given] == [0, 1] and given[0]["task"]["train_examples"] == 4
    load, threads = tasks.load, torch.get_num_threads()
    try:
        first, following = phase_clock.measure([RunConfig.of(config) for config in given])
    finally:
        torch.set_num_threads(threads)
    wanted = {*PHASES, REST} | ({"generate", "score texts"} if name == "e2e" else set())
    assert set(first) == {START, *wanted} and set(following) - {START} == wanted
    assert tasks.load is load


def test_the_table_has_the_shares_of_each_run() -> None:
    first = {START: 4.0, REST: 1.0, "data": 1.0, "train": 2.0}
    table = phases.table({"minilm": [first, {START: 0.0, REST: 1.0, "data": 1.0, "train": 2.0}]})
    assert table["phase"].tolist() == [START, "data", "train", REST, phases.WHOLE]
    assert table["first run, s"].tolist() == [4.0, 1.0, 2.0, 1.0, 8.0]
    assert table["share of the first"].tolist() == [0.5, 0.125, 0.25, 0.125, 1.0]
    assert table["share of the next"].tolist() == [0.0, 0.25, 0.5, 0.25, 1.0]


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert phases.main(["--run", "gpt3", "--out", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
