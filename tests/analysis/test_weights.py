"""Weights read from disk are the modules' own, whatever the architecture, the file and the names."""

import json
import os
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, HIDDEN, LAYERS, tiny_model
from torch import Tensor, nn

from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from lora.config import InputError
from lora.layer import turned
from lora.targets import WHOLE, typed_places
from lora.tensor_files import Safetensors


def store(model: nn.Module, folder: Path, how: str) -> None:
    """Save a model: whole or sharded, as safetensors or pickled."""
    model.save_pretrained(folder, max_shard_size="20KB" if "sharded" in how else "1GB")
    if "bin" not in how:
        return
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        torch.save(load_file(file), folder / file.name.replace("model", "pytorch_model").replace("safetensors", "bin"))
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        text = index.read_text().replace('"model-', '"pytorch_model-').replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()


@pytest.mark.parametrize("how", ["safetensors", "sharded safetensors", "bin", "sharded bin"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_matrices_are_the_modules_own(kind: str, how: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    store(model, tmp_path, how)
    weights = Weights.open(str(tmp_path))
    places = typed_places(model)
    assert len(weights.sites) == len(places)
    for module, _, part in places:
        own = model.get_submodule(module)
        expected = turned(own, own.weight)[part.rows]
        assert weights.shape(module, part.name) == tuple(expected.shape)
        assert torch.equal(weights.matrix(module, part.name), expected)
    by_site = [weights.matrix(*at) for at in weights.sites.values()]
    assert sum(matrix.numel() for matrix in by_site) == sum(
        model.get_submodule(module).weight.numel() for module in {place.module for place in places}
    )


@pytest.mark.parametrize("kind", ["gpt2", "llama", "phi3"])
def test_all_matrices_of_a_sharded_model_take_one_read_of_each_tensor(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tiny_model(kind), tmp_path, "sharded safetensors")
    weights = Weights.open(str(tmp_path))
    reads: list[str] = []
    read = Safetensors._read

    def counted(file: Safetensors, names: list[str]) -> dict[str, Tensor]:
        reads.extend(names)
        return read(file, names)

    monkeypatch.setattr(Safetensors, "_read", counted)
    for place in weights.sites.values():
        weights.matrix(*place)
    assert sorted(reads) == sorted(weights.read_as_matrix())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "opt"])
def test_prefixes_do_not_matter(kind: str, tmp_path: Path) -> None:
    """A body alone, and the same body under a head: both are read by either's module names."""
    model = tiny_model(kind)
    model.save_pretrained(tmp_path / "head")
    model.base_model.save_pretrained(tmp_path / "body")
    for folder in ("head", "body"):
        weights = Weights.open(str(tmp_path / folder))
        for owner in (model, model.base_model):
            for module, _, part in typed_places(owner):
                own = owner.get_submodule(module)
                assert torch.equal(weights.matrix(module, part.name), turned(own, own.weight)[part.rows])


def test_sites(tmp_path: Path) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path)
    weights = Weights.open(str(tmp_path))
    assert list(weights.sites) == [Site(str(n), x) for n in range(LAYERS) for x in ("q", "k", "v", "o", "up", "down")]
    assert weights.sites[Site("1", "k")] == ("h.1.attn.c_attn", "k")
    assert list(weights.slices("transformer.h.0.attn.c_attn")) == ["q", "k", "v"]
    assert weights.has("transformer.h.0.attn.c_attn") and weights.has("wte") and not weights.has("lm_head")


def test_whole_modules(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.save_pretrained(tmp_path)
    weights = Weights.open(str(tmp_path))
    fused, embedding = (model.get_submodule(f"transformer.{name}") for name in ("h.0.attn.c_attn", "wte"))
    assert torch.equal(weights.matrix("h.0.attn.c_attn", WHOLE), fused.weight.T)
    assert torch.equal(weights.matrix("wte", WHOLE), embedding.weight.T)


def test_a_model_of_unknown_weight_types(tmp_path: Path) -> None:
    """Its layers' linear modules are named by the ends of their names."""
    config = transformers.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = transformers.MambaForCausalLM(config)
    model.save_pretrained(tmp_path)
    weights = Weights.open(str(tmp_path))
    assert len(weights.sites) == 2 * 4
    module, leaf = weights.sites[Site("1", "in_proj")]
    assert torch.equal(weights.matrix(module, leaf), model.backbone.layers[1].mixer.in_proj.weight)


def test_rounding_is_that_of_loading(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    exact, rounded = Weights.open(str(tmp_path)), Weights.open(str(tmp_path), torch.bfloat16)
    for module, weight_type in exact.sites.values():
        expected = loaded.get_submodule(module).weight.float()
        assert torch.equal(rounded.matrix(module, weight_type), expected)
        assert torch.equal(exact.rounded(torch.bfloat16).matrix(module, weight_type), expected)
        assert not torch.equal(exact.matrix(module, weight_type), expected)


def test_only_the_file_of_the_tensor_is_read(tmp_path: Path) -> None:
    model = tiny_model("llama")
    store(model, tmp_path, "sharded safetensors")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    needed = index["model.layers.1.mlp.up_proj.weight"]
    assert len(set(index.values())) > 2
    for file in set(index.values()) - {needed}:
        (tmp_path / file).write_bytes(b"no tensors")
    weights = Weights.open(str(tmp_path))
    assert torch.equal(weights.matrix("layers.1.mlp.up_proj", "up"), model.model.layers[1].mlp.up_proj.weight)
    refused(tmp_path, "is damaged")
    for file in set(index.values()) - {needed}:
        (tmp_path / file).unlink()
    refused(tmp_path, "which its index names: copy or download it again")


def test_packaged_asset() -> None:
    weights = Weights.open("asset:minilm")
    assert len(weights.sites) == 6 * 6
    assert weights.matrix(*weights.sites[Site("5", "up")]).shape == (1536, 384)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, which is out of reach, with the model tiny/bert: the folder of its files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "hub" / "models--tiny--bert"
    commit = "0" * 40
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    return model / "snapshots" / commit


@pytest.mark.parametrize("how", ["safetensors", "sharded safetensors", "sharded bin"])
def test_hub_id(how: str, hub: Path) -> None:
    model = tiny_model("bert")
    store(model, hub, how)
    weights = Weights.open("tiny/bert")
    expected = model.get_submodule("bert.encoder.layer.0.attention.self.value").weight
    assert torch.equal(weights.matrix(*weights.sites[Site("0", "v")]), expected)


def test_hub_out_of_reach(hub: Path) -> None:
    with pytest.raises(InputError, match="there is no model tiny/other here.*the hub is not asked: offline"):
        Weights.open("tiny/other")


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    tiny_model("bert").save_pretrained(folder)
    return folder


def read_all(folder: Path | str) -> None:
    weights = Weights.open(str(folder))
    for at in weights.sites.values():
        weights.matrix(*at)


def refused(folder: Path | str, match: str) -> None:
    with pytest.raises(InputError, match=match) as raised:
        read_all(folder)
    assert "\n" not in str(raised.value)


def test_missing_and_damaged_files(bert: Path) -> None:
    refused(bert.parent / "nothing", "does not exist")
    refused(bert.parent, "is no model: it has no config.json")
    whole = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(bert, "model.safetensors is damaged")
    (bert / "model.safetensors").unlink()
    refused(bert, "has no weights: it needs model.safetensors or pytorch_model.bin")
    (bert / "model.safetensors.index.json").write_text('{"metadata": {}}')
    refused(bert, "it has no weight_map")
    other = bert.parent / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "no_such_model"}')
    refused(other, "cannot be loaded")


def test_damaged_tensors(bert: Path) -> None:
    file = bert / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    save_file(tensors | {name: torch.zeros(HIDDEN, 3)}, file)
    refused(bert, rf"{name} is \(32, 3\), float32, not \(48, 32\)")
    save_file(tensors | {name: tensors[name].to(torch.int8)}, file)
    refused(bert, "dense.weight is stored as int8, which is no weight by itself")
    del tensors[name]
    save_file(tensors, file)
    weights = Weights.open(str(bert))
    assert Site("1", "up") not in weights.sites and Site("0", "up") in weights.sites
    with pytest.raises(InputError, match="lacks the weight of encoder.layer.1.intermediate.dense"):
        weights.matrix("encoder.layer.1.intermediate.dense", "up")
    with pytest.raises(InputError, match="has no weight type 'gate' in encoder.layer.1.intermediate.dense"):
        weights.matrix("encoder.layer.1.intermediate.dense", "gate")


def test_pickled_code_is_not_run(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    torch.save({"a": Malicious(bert / "trace")}, bert / "pytorch_model.bin")
    refused(bert, "pytorch_model.bin cannot be read as plain tensors .* are not unpickled because they could run code")
    assert not (bert / "trace").exists()
    torch.save({"epoch": 3, "weight": torch.ones(2)}, bert / "pytorch_model.bin")
    refused(bert, "holds other things than names and tensors")
