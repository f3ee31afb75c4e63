"""Losses on held-out text against transformers' own and by hand; the command as typed, killed, and with bad input."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_runs
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import composed
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from experiments.measure import forgetting, held_out
from experiments.method_settings import Prompt
from experiments.methods import prefix_embed
from experiments.models import Runtime
from experiments.store import definition, run_id
from lora import io
from lora.config import InputError
from lora.model import lora_layers

STUDY, TOKENS = "forgetting", 12
FP32 = Runtime(torch.device("cpu"), torch.float32)
DOCUMENTS = {
    "bbc_news": [
        f"The minister said on day {n} that the economy of his country grew by {n} per cent" for n in range(9)
    ],
    "newsgroups": [
        f"re car for sale in article {n} you write that it has {n} doors and a new engine" for n in range(9)
    ],
}
METHODS = {
    "lora": ["method=lora", "method.r=2"],
    "full": ["method=full"],
    "norm_only": ["method=norm_only"],
    "adapter_h": ["method=adapter_h", "method.bottleneck=4"],
    "prefix_embed": ["method=prefix_embed", "method.l_p=3", "method.l_i=2"],
    "prefix_layer": ["method=prefix_layer", "method.l_p=3", "method.l_i=2"],
    "lora+prefix_layer": ["method=lora+prefix_layer", "method.r=2", "method.l_p=3", "method.l_i=2"],
}
Command = Callable[..., tuple[int, str]]


class Letters:
    """A tokenizer whose tokens are letters; `start` comes before a text."""

    eos_token_id = 0

    def __init__(self, start: list[int]) -> None:
        self.start = start

    def __call__(self, text: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, str):
            return {"input_ids": [*self.start, *map(ord, text)] if add_special_tokens else [*map(ord, text)]}
        return {"input_ids": [self(one, add_special_tokens)["input_ids"] for one in text]}


@given(
    st.lists(st.text("abcdefgh", max_size=30), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(2, 7),
    st.sampled_from([[], [7], [7, 0]]),
)
def test_windows_lie_within_documents(documents: list[str], count: int, length: int, start: list[int]) -> None:
    mark = [token for token in start if token]
    inner = length - len(mark)
    every = [text[i : i + inner] for text in documents for i in range(0, len(text) // inner * inner, inner)]
    if not every:
        with pytest.raises(InputError, match="no document of mine has"):
            held_out.windows(documents, Letters(start), count, length, "mine")  # type: ignore[arg-type]
        return
    found = held_out.windows(documents, Letters(start), count, length, "mine")  # type: ignore[arg-type]
    assert found.shape == (min(count, len(every)), length)
    assert all(row[: len(mark)] == mark for row in found.tolist())
    texts = ["".join(map(chr, row[len(mark) :])) for row in found.tolist()]
    step = len(every) / len(texts)
    assert texts == [every[math.floor(place * step + 1e-9)] for place in range(len(texts))]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_that_of_transformers(family: str, decoders: dict[str, Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(decoders[family]).train()
    windows = torch.randint(5, 1000, (7, 20), generator=torch.Generator().manual_seed(0))
    found = held_out.loss(model, windows, FP32)
    assert not model.training
    with torch.no_grad():
        theirs = model(input_ids=windows, labels=windows).loss.item()
        assert found == pytest.approx(theirs, rel=1e-6)
        # And by hand: of each token the logarithm of its share among all, given those before it.
        logits = model(input_ids=windows[:1, :5]).logits[0].double()
    shares = logits.exp() / logits.exp().sum(-1, keepdim=True)
    hand = -sum(math.log(shares[place, windows[0, place + 1]]) for place in range(4)) / 4
    assert held_out.loss(model, windows[:1, :5], FP32) == pytest.approx(hand, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefix_comes_before_a_window(family: str, decoders: dict[str, Path]) -> None:
    windows = torch.randint(5, 1000, (2, 9), generator=torch.Generator().manual_seed(0))
    plain = AutoModelForCausalLM.from_pretrained(decoders[family]).eval()
    model = AutoModelForCausalLM.from_pretrained(decoders[family])
    prefix_embed.apply(model, Prompt(l_p=3, l_i=2), None)
    vectors: Tensor = next(value for name, value in model.named_parameters() if name.endswith("prompt.vectors"))
    with torch.no_grad():
        vectors.normal_(std=0.5)
        words = plain.get_input_embeddings()(windows)
        rows = torch.cat([vectors[:3].expand(2, -1, -1), words], dim=1)
        logits = plain(inputs_embeds=rows).logits[:, 3:-1]
    expected = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item()
    assert held_out.loss(model, windows, FP32) == pytest.approx(expected, rel=1e-5)
    assert abs(expected - held_out.loss(plain, windows, FP32)) > 0.01


@pytest.fixture(autouse=True)
def corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small corpora in place of the real ones."""
    own = {name: (lambda name=name: DOCUMENTS[name], marks) for name, (_, marks) in forgetting.CORPORA.items()}
    monkeypatch.setattr(forgetting, "CORPORA", own)


@pytest.fixture
def typed(decoders: dict[str, Path], tmp_path: Path) -> list[str]:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"{n}:", "completion": " it is so"}) + "\n" for n in range(40)))
    return [f"model.path={decoders['llama']}", f"task.path={pairs}", "runtime.threads=1"]


@pytest.fixture
def store(tmp_path: Path, typed: list[str]) -> Callable[..., str]:
    def one(*overrides: str, **options: Any) -> str:
        small = ["model=hub", "task=local", "task.max_length=32", "task.generation.max_new_tokens=2"]
        return made_up_runs.store(tmp_path / "results", STUDY, *small, *typed, *overrides, **options)

    return one


@pytest.fixture
def measure(tmp_path: Path, typed: list[str], capsys: pytest.CaptureFixture[str]) -> Command:
    """The command on small windows; returns its exit code and standard error."""

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        study_dir = str(tmp_path / "results" / "smoke" / STUDY)
        code = forgetting.main([study_dir, *typed, "--windows", "5", "--tokens", str(TOKENS), *arguments])
        return code, capsys.readouterr().err

    return call


def results(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "results" / "smoke" / STUDY / "forgetting.csv", dtype={"r": str, "settings": str})


def nothing(model: nn.Module) -> None:
    """Training that has changed nothing."""


def test_every_method_is_measured_and_what_has_not_changed_has_forgotten_nothing(
    store: Callable[..., str], measure: Command, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, typed: list[str]
) -> None:
    trained = {name: store(*overrides) for name, overrides in METHODS.items()}
    untouched = {name: store(*METHODS[name], "seed=1", change=nothing) for name in ("lora", "full", "adapter_h")}
    assert measure() == (0, "")
    found = results(tmp_path)
    assert list(found.columns)[:11] == [
        "run_id", "model", "task", "method", "label", "settings", "r", "seed", "text", "loss_before", "loss_after",
    ]  # fmt: skip
    assert len(found) == 2 * (len(trained) + len(untouched))
    assert set(found["text"]) == set(DOCUMENTS) and set(found["windows"]) == {5} and set(found["tokens"]) == {TOKENS}
    assert (found.groupby("text")["loss_before"].nunique() == 1).all()
    rise = (found["loss_after"] - found["loss_before"]).groupby(found["run_id"]).agg(["min", "max"])
    assert (rise.loc[list(untouched.values())] == 0).all(axis=None)
    assert (rise.loc[list(trained.values())].abs().min(axis=1) > 1e-4).all()

    row = found[(found["run_id"] == trained["lora"]) & (found["text"] == "bbc_news")].iloc[0]
    assert row[["method", "label", "settings", "r", "seed"]].tolist() == ["lora", "lora", "r=2, q+v", "2", 0]
    model = AutoModelForCausalLM.from_pretrained(typed[0].partition("=")[2])
    windows = held_out.windows(DOCUMENTS["bbc_news"], tokenizer, 5, TOKENS, "")
    with torch.no_grad():
        assert row["loss_before"] == pytest.approx(model(input_ids=windows, labels=windows).loss.item(), rel=1e-6)
        io.load(model, tmp_path / "results" / "runs" / trained["lora"] / "adapter")
        assert len(list(lora_layers(model))) == 4
        assert row["loss_after"] == pytest.approx(model(input_ids=windows, labels=windows).loss.item(), rel=1e-6)


def test_what_is_stored_is_not_measured_again(
    store: Callable[..., str], measure: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store(*METHODS["lora"]), store(*METHODS["norm_only"])
    real, read = held_out.loss, list[int]()

    def counted(model: Any, windows: Tensor, runtime: Runtime) -> float:
        read.append(len(windows))
        if len(read) == 6:
            raise KeyboardInterrupt
        return real(model, windows, runtime)

    monkeypatch.setattr(held_out, "loss", counted)
    code, error = measure()
    assert code == 130 and "continues" in error
    begun = results(tmp_path)
    assert begun["run_id"].tolist() == [first, first, second]  # two texts before, two after, one after
    assert measure()[0] == 0
    assert len(read) == 6 + 2  # one text, before and after
    found = results(tmp_path)
    pd.testing.assert_frame_equal(found[:3], begun)
    assert found["run_id"].tolist() == [first, first, second, second] and found["text"].nunique() == 2
    assert measure()[0] == 0 and len(read) == 8

    notes = tmp_path / "notes.txt"
    notes.write_text("Some words of my own, and some more of them. " * 3)
    assert measure("--text", str(notes))[0] == 0
    assert len(read) == 8 + 3
    assert set(results(tmp_path).loc[4:, "text"]) == {"notes.txt"} and set(results(tmp_path).loc[4:, "windows"]) == {3}
    notes.write_text("Other words, and some more of them, as many as are needed. " * 3)
    assert measure(f"--text={notes}")[0] == 0
    assert len(read) == 11 + 3 and len(results(tmp_path)) == 6
    assert measure()[0] == 0 and len(results(tmp_path)) == 6  # a text that is not named stays
    assert measure("--windows", "4")[0] == 0
    assert len(read) == 14 + 6 and set(results(tmp_path)["windows"]) == {3, 4}
    made_up_runs.forget(tmp_path / "results" / "smoke" / STUDY, second)
    assert measure("--windows", "4")[0] == 0
    assert set(results(tmp_path)["run_id"]) == {first} and len(read) == 20


def test_a_text_that_a_run_trains_on_is_left_out(
    store: Callable[..., str], typed: list[str], measure: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["model=hub", typed[0], "task.max_length=48", "task.train_examples=4"]
    small += ["task.validation_examples=2", "task.test_examples=2", "task.generation.max_new_tokens=2"]
    made_up_runs.store(tmp_path / "results", STUDY, "task=bbc_headlines", *METHODS["lora"], *small)
    assert measure()[0] == 0
    assert set(results(tmp_path)["text"]) == {"newsgroups"}
    made_up_runs.store(tmp_path / "results", STUDY, "task=text/newsgroups", *METHODS["lora"], *small)
    code, error = measure()
    assert code == 2 and "the study trains on every corpus there is: give a text of your own with --text" in error
    notes = tmp_path / "notes.txt"
    notes.write_text("Some words of my own, and some more of them. " * 3)
    assert measure("--text", str(notes))[0] == 0


def test_bad_input_is_one_line(store: Callable[..., str], measure: Command, tmp_path: Path) -> None:
    def error(*arguments: str) -> str:
        code, text = measure(*arguments)
        assert code == 2 and text.startswith("error: ") and text.count("\n") == 1, text
        return text

    store(*METHODS["prefix_embed"])
    assert "--text" in error("--text", str(tmp_path / "none.txt"))
    short = tmp_path / "short.txt"
    short.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as UTF-8 text" in error("--text", str(short))
    short.write_text("Too short.")
    assert "no document of short.txt has 12 tokens" in error("--text", str(short))
    assert "--tokens must be 2 or more" in error("--tokens", "1")
    assert "has room for 2043 tokens beside its prompt: give --tokens 2043" in error("--tokens", "2048")
    assert "'0' is no whole number of at least 1" in error("--windows", "0")
    file = tmp_path / "results" / "smoke" / STUDY / "forgetting.csv"
    assert measure()[0] == 0
    file.write_text(file.read_text()[:-25])
    assert "forgetting.csv is damaged; delete it, the same command measures anew" in error()


def test_a_classifier_has_nothing_to_be_measured(
    tmp_path: Path, tiny_model: Path, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"model.path={tiny_model}", f"task.path={reviews}"]
    run = made_up_runs.store(tmp_path / "results", STUDY, "model=hub", "task=local", *places)
    capsys.readouterr()
    assert forgetting.main([str(tmp_path / "results" / "smoke" / STUDY), *places]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: run {run} (tiny on reviews) is a classifier, which has no loss on text: forgetting is measured on "
        "runs of causal language models\n"
    )


@pytest.mark.parametrize(
    "point",
    [
        ("method=full",),
        ("method=lora", "method.r=64"),
        ("method=prefix_layer", "method.l_p=8", "method.l_i=8"),
        ("method=adapter_h", "method.bottleneck=8"),
    ],
)
def test_the_runs_at_desk_scale_are_those_of_table_15(point: tuple[str, ...]) -> None:
    ids = [
        run_id(definition(composed(f"study={study}", "preset=desk", "model=smollm2", "task=text2sql", *point)))
        for study in ("forgetting", "table15")
    ]
    assert ids[0] == ids[1]


def test_no_setting_takes_the_rate_of_another() -> None:
    for method in ("ft_top2", "norm_only", "lora"):
        words = ("study=forgetting", "preset=desk", "model=smollm2", "task=text2sql", f"method={method}")
        assert composed(*words)["training"]["lr"] == "tuned"
