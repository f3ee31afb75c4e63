"""Model folders as people have them: code in them is never run, and what is damaged or does not fit is one line."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from fuzzing import one_line, outcomes
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from experiments import models
from experiments.config import ModelSettings
from experiments.models import choose_runtime
from experiments.problems.classification import tokenize
from experiments.tasks import TaskData
from lora.config import InputError

RUNTIME = choose_runtime("cpu", "fp32")
DATA: Any = TaskData(None, None, None, ("no", "yes"), "accuracy")  # type: ignore[arg-type]


def classifier(folder: Path) -> Any:
    return models.load_classifier(ModelSettings(name="m", path=str(folder)), DATA, RUNTIME)


def writer(folder: Path) -> Any:
    return models.load_language_model(ModelSettings(name="m", path=str(folder)), RUNTIME)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "mine"))


@pytest.fixture
def decoder(decoders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(decoders["llama"], tmp_path / "mine"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_folder_is_never_run(known: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = folder.parent / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\nclass M: pass\nclass T: pass\n")
    classes = {"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M", "AutoModel": "code.M"}
    edit(
        folder / "config.json", lambda c: c.update(auto_map=classes, **({} if known else {"model_type": "unheard-of"}))
    )
    edit(folder / "tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["code.T", "code.T"]}))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    if known:
        classifier(folder)
    else:
        for load in (classifier, writer, lambda path: models.skeleton(str(path))):
            with pytest.raises(InputError, match=r"mine cannot be loaded"):
                load(folder)
    assert not ran.exists()


def test_a_config_that_ships_has_no_weights_to_train() -> None:
    for load in (classifier, writer):
        with pytest.raises(
            InputError, match=r"model config:llama-7b is a config without weights, .* hub id or a folder"
        ):
            load(Path("config:llama-7b"))


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (open, (str(self.place), "w"))


def test_objects_in_a_bin_are_not_made(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "evil": Evil(folder / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        classifier(folder)
    one_line(str(caught.value))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(folder / "ran")))
    with pytest.raises(InputError, match="cannot be loaded"):
        classifier(folder)
    assert not (folder / "ran").exists()
    torch.save(weights, folder / "pytorch_model.bin")
    network, _ = classifier(folder)
    assert torch.equal(
        network.bert.embeddings.word_embeddings.weight, weights["bert.embeddings.word_embeddings.weight"]
    )


def test_pretrained_weights_that_are_not_there_are_not_drawn(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if "layer.1.attention" not in key}, file)
    with pytest.raises(InputError, match=r"lack \d+ weights of a bert model, bert.encoder.layer.1.attention"):
        classifier(folder)
    save_file({key: value for key, value in weights.items() if ".pooler." not in key and "classifier" not in key}, file)
    classifier(folder)
    key = "bert.embeddings.word_embeddings.weight"
    save_file({**weights, key: weights[key][:100].clone()}, file)
    with pytest.raises(InputError, match=r"word_embeddings.weight is \(100, 32\), by its config it is \(30522, 32\)"):
        classifier(folder)
    more = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file({**more, "classifier.weight": torch.zeros(7, 32), "classifier.bias": torch.zeros(7)}, file)
    network, _ = classifier(folder)
    assert network.classifier.weight.shape == (2, 32)


def test_a_language_model_without_its_output_layer(decoder: Path) -> None:
    file = decoder / "model.safetensors"
    weights = load_file(file)
    assert "lm_head.weight" in weights
    save_file({key: value for key, value in weights.items() if key != "lm_head.weight"}, file, {"format": "pt"})
    with pytest.raises(InputError, match="lack 1 weights of a llama model, lm_head.weight"):
        writer(decoder)


def word_level(folder: Path, **special: str) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    for file in (*folder.glob("*token*"), *folder.glob("vocab*")):
        file.unlink()
    inner = Tokenizer(WordLevel({"a": 0, "b": 1, "[UNK]": 2}, "[UNK]"))
    inner.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", **special).save_pretrained(folder)


def test_pads(folder: Path) -> None:
    word_level(folder)
    with pytest.raises(InputError, match="neither a padding nor an end token.* pad_token in its tokenizer_config.json"):
        classifier(folder)
    word_level(folder, eos_token="b")
    network, tokenizer = classifier(folder)
    assert tokenizer.pad_token == "b" and network.config.pad_token_id == 1
    sizes = load_file(folder / "model.safetensors")
    key = "bert.embeddings.word_embeddings.weight"
    save_file({**sizes, key: sizes[key][:3].clone()}, folder / "model.safetensors")
    edit(folder / "config.json", lambda c: c.update(vocab_size=3, pad_token_id=0))
    word_level(folder, pad_token="[PAD]")
    with pytest.raises(InputError, match=r"the padding token '\[PAD\]' has the id 3, but there are embeddings for 3"):
        classifier(folder)


def test_rows_without_tokens_and_tokens_without_embeddings(folder: Path) -> None:
    from datasets import Dataset

    word_level(folder, pad_token="a")
    network, tokenizer = classifier(folder)
    rows = tokenize(Dataset.from_dict({"text": ["a b", " "], "label": [0, 1]}), tokenizer, 8)
    with pytest.raises(InputError, match="example 2: the tokenizer makes no token of it"):
        models.check_tokens(rows, network)
    with pytest.raises(
        InputError, match="example 1: the tokenizer has a token with the id 30522, but there are embedd"
    ):
        models.check_tokens([{"input_ids": [1, 30522]}], network)


JSON = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
ODD: list[Any] = [None, -1, 0, "x", 1.5, [], {}, [1], {"a": 1}, 10**30, True, "auto", ["x"], "\ud800"]


def test_fuzz_model_configs(decoders: dict[str, Path], tmp_path: Path) -> None:
    """One field of one JSON file is another: the model is read, or one line says that it is not."""
    folder = Path(shutil.copytree(decoders["llama"], tmp_path / "mine"))
    whole = {name: (folder / name).read_text() for name in JSON if (folder / name).exists()}

    def attempt(random: Random) -> str:
        name = random.choice(sorted(whole))
        content = json.loads(whole[name])
        kind = random.random()
        if kind < 0.8:
            content[random.choice(sorted(content))] = random.choice(ODD)
        text = (
            json.dumps(content) if kind < 0.9 else random.choice(["", "[]", "{", "null", whole[name][:-9], "\0", '"x"'])
        )
        (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            writer(folder)
        except InputError as error:
            return "refused" if "mine" in one_line(str(error)) else f"unnamed: {error}"
        finally:
            (folder / name).write_text(whole[name])
        return "read"

    assert set(outcomes(attempt, share=0.05)) <= {"read", "refused"}


def test_fuzz_weight_files(tiny_model: Path, tmp_path: Path) -> None:
    """Bytes of the weights are others, or missing: what is read is never of another shape or unnamed."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")

    def attempt(random: Random) -> str:
        content = bytearray(whole)
        if random.random() < 0.4:
            content = content[: random.randrange(len(content))]
        else:
            for _ in range(random.randrange(1, 5)):
                content[random.randrange(header)] = random.randrange(256)
        file.write_bytes(content)
        try:
            network, _ = classifier(folder)
        except InputError as error:
            return "refused" if "mine" in one_line(str(error)) else f"unnamed: {error}"
        assert network.num_parameters() == parameters
        return "read"

    parameters = AutoModelForSequenceClassification.from_pretrained(folder).num_parameters()
    assert set(outcomes(attempt, share=0.1)) <= {"read", "refused"}
