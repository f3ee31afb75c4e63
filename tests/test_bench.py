"""The benchmark: contenders do the same work, FLOPs are those torch counts, and the table says what was measured."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from bench import training
from bench.classifier import Classifier
from bench.contenders import CONTENDERS, Trial
from bench.language import LanguageModel
from bench.workload import Workload
from experiments import assets
from lora.config import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


class TinyClassifier(Classifier):
    title = "a tiny encoder"


class TinyDecoder(LanguageModel):
    title = "a tiny decoder"


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    """Both workloads, on tiny random models in fp32 and made-up rows of different lengths."""
    folder = tmp_path_factory.mktemp("bench")
    torch.manual_seed(0)
    networks = {
        "minilm": BertForSequenceClassification(
            BertConfig(vocab_size=30522, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SIZES)
        ),
        "smollm2": LlamaForCausalLM(LlamaConfig(vocab_size=49152, num_key_value_heads=2, eos_token_id=2, **SIZES)),
    }
    for name, network in networks.items():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)  # outputs are far from uniform
        network.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(assets.fetch(name)).save_pretrained(folder / name)
    words = [" ".join(["word"] * (1 + row % 7)) + f" {row}" for row in range(12)]
    rows = {
        "reviews": [{"text": text, "label": ("bad", "good")[row % 2]} for row, text in enumerate(words)],
        "pairs": [{"prompt": text, "completion": f" it is {text[: 3 + row]}"} for row, text in enumerate(words)],
    }
    for name, table in rows.items():
        for split in ("train", "held_out"):
            (folder / f"{name}_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))

    def settings(model: str, data: str) -> list[str]:
        held_out = f"{folder}/{data}_held_out.jsonl"
        files = [f"task.test_path={held_out}", f"task.validation_path={held_out}"]
        files.append(f"task.path={folder}/{data}_train.jsonl")
        recipe = ["method.r=2", "method.alpha=4", "training.lr=1e-2", "training.batch_size=6", "runtime.precision=fp32"]
        return [
            "model=hub",
            f"model.path={folder}/{model}",
            "task=local",
            f"task.path={folder}/{data}_train.jsonl",
            *files,
            *recipe,
        ]

    found: dict[str, Workload] = {"minilm": TinyClassifier(), "smollm2": TinyDecoder()}
    for name, data in (("minilm", "reviews"), ("smollm2", "pairs")):
        found[name].settings = settings(name, data)
    return found


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_contenders_do_the_same_work(
    name: str, works: dict[str, Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = {contender: run(works[name], 1) for contender, run in CONTENDERS.items()}
    losses = [trial.loss for trial in done.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4), "in warm-up the first step has lr = 0"
    assert {trial.precision for trial in done.values()} == {"float32"}
    assert all(trial.tokens_per_second > 0 and trial.peak_memory_bytes > 0 for trial in done.values())
    assert not list(tmp_path.iterdir()), "nothing is left where the user is"


@pytest.mark.parametrize("name", ["minilm", "smollm2"])
def test_flops_are_those_torch_counts(name: str, works: dict[str, Workload]) -> None:
    work = works[name]
    problem = work.problem(work.config(1))
    rows = problem.rows["train"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for row in rows:  # one by one: no padding
            problem.loss([row])
    ends = ("_proj", "lm_head", "query", "key", "value", "dense")
    projections = {name: flops for name, flops in counter.get_flop_counts().items() if name.endswith(ends)}
    forward = sum(sum(flops.values()) for name, flops in projections.items() if "pooler" not in name)
    tokens = sum(len(row["input_ids"]) for row in rows)
    assert work.flops_per_token(problem.model, rows) * tokens == pytest.approx(2 * forward)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "3"], "error: --steps: a tiny decoder has data for 2 steps"),
        (["--rounds", "0"], "error: --rounds must be 1 or more; got 0"),
        (["--model", "gpt5"], "error: --model = gpt5; there are: minilm, smollm2"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    works: dict[str, Workload],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(training.WORKLOADS, "smollm2", works["smollm2"])
    assert training.main(["--model", "smollm2", "--out", str(tmp_path), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_trial_is_what_its_process_says_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(400.5, 10**9, 3.25, "bfloat16")
    interpreter = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(interpreter))
    said = json.dumps(trial._asdict())
    interpreter.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\necho loss\necho '{said}'\n")
    interpreter.chmod(0o755)
    assert training.measure("minilm", "lora-lab", 7) == trial
    assert (tmp_path / "asked").read_text() == "-m bench.training --model minilm --trial lora-lab --steps 7\n"

    interpreter.write_text("#!/bin/sh\necho warning >&2\necho error: out of memory >&2\nexit 1\n")
    with pytest.raises(InputError, match="^lora-lab failed on minilm: out of memory$"):
        training.measure("minilm", "lora-lab", 7)


def test_tables(
    works: dict[str, Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = iter([300, 100, 50, 500, 200, 75, 400, 150, 100])  # three rounds of three contenders
    asked = []

    def measure(model: str, contender: str, steps: int) -> Trial:
        asked.append((model, contender, steps))
        speed = next(speeds)
        return Trial(speed, 10**6 * speed, loss=speed / 100, precision="float32")

    monkeypatch.setitem(training.WORKLOADS, "smollm2", works["smollm2"])
    monkeypatch.setattr(training, "measure", measure)
    monkeypatch.setattr(training, "gemm_peak", lambda runtime: 1e9)
    assert training.main(["--model", "smollm2", "--steps", "2", "--rounds", "3", "--out", str(tmp_path)]) == 0
    assert asked == [("smollm2", name, 2) for name in CONTENDERS] * 3, "contenders take turns"
    table = pd.read_csv(tmp_path / "training_smollm2.csv").set_index("contender")
    assert list(table.index) == list(CONTENDERS)
    assert list(table["tokens/s"]) == [400, 150, 75]
    assert list(table["lora-lab is faster by"]) == [1.0, 2.67, 5.33]
    assert (table.loc["lora-lab", "lowest"], table.loc["lora-lab", "highest"]) == (300, 500)
    assert list(table["validation loss"]) == [4.0, 1.5, 0.75]
    problem = works["smollm2"].problem(works["smollm2"].config(2))
    flops = works["smollm2"].flops_per_token(problem.model, problem.rows["train"])
    assert table.loc["lora-lab", "share of GEMM peak"] == pytest.approx(400 * flops / 1e9, abs=5e-4)
    assert "a tiny decoder, 2 steps, 3 rounds" in (tmp_path / "training_smollm2.md").read_text()
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path}/training_smollm2.csv"
