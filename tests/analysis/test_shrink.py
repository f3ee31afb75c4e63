"""A smaller adapter is the truncated SVD of each update, computed by numpy, and works in peft and in this suite."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from adapter_files import base_folder, of_loralib, of_peft, own, stored_run
from safetensors.torch import load_file, save_file
from tiny_models import LAYERS, assert_equal, logits, randomise, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn

from analysis.shrink.__main__ import main
from lora import io
from lora import model as core
from lora.config import LoRAConfig
from lora.interop import load_peft
from lora.model import lora_layers


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    U, S, Vh = np.linalg.svd(matrix)
    return U[:, :rank] @ np.diag(S[:rank]) @ Vh[:rank]


def deltas(model: nn.Module) -> dict[tuple[str, str], np.ndarray]:
    return {
        (name, part.name): layer.delta_w(part.name).detach().double().numpy()
        for name, layer in lora_layers(model)
        for part in layer.parts
    }


def peft_deltas(model: nn.Module) -> dict[str, np.ndarray]:
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            delta = module.get_delta_weight("default").detach().double().numpy()
            turned = delta.T if getattr(module, "fan_in_fan_out", False) else delta
            found[name.removeprefix("base_model.model.")] = turned
    return found


def in_peft(kind: str, folder: Path) -> nn.Module:
    return peft.PeftModel.from_pretrained(tiny_model(kind), str(folder)).eval()


def of_rank(found: np.ndarray, dense: np.ndarray, rank: int) -> None:
    np.testing.assert_allclose(found, truncated(dense, rank), atol=2e-6 * np.abs(dense).max())


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_every_update_is_its_best_approximation(kind: str, tmp_path: Path) -> None:
    dense = own(kind, tmp_path / "own", weight_types=("q", "v", "up"))
    assert main([str(tmp_path / "own"), "--rank", "2", "--out", str(tmp_path / "small")]) == 0
    model = tiny_model(kind)
    io.load(model, tmp_path / "small")
    found = deltas(model)
    assert set(found) == set(dense)
    for key, delta in found.items():
        of_rank(delta, dense[key], 2)
    assert {target.r for target in io.read(tmp_path / "small").targets} == {2}


def test_a_pattern_of_ranks_is_the_same_in_peft_and_here(tmp_path: Path) -> None:
    """The largest singular values over all modules; the head is kept."""
    model = tiny_model("bert")
    core.inject(model, LoRAConfig(r=4, alpha=8, weight_types=("q", "k", "v", "down")))
    core.freeze(model, ["classifier"])
    randomise(model)
    with torch.no_grad():
        model.classifier.weight.add_(1.0)
    io.save(model, tmp_path / "own")
    arguments = [str(tmp_path / "own"), "--energy", "0.6"]
    for layout in ("own", "peft"):
        assert main([*arguments, "--format", layout, "--out", str(tmp_path / f"small {layout}")]) == 0
    small, loaded = tiny_model("bert"), tiny_model("bert")
    io.load(small, tmp_path / "small own")
    load_peft(loaded, tmp_path / "small peft")
    table = pd.read_csv(tmp_path / "small peft" / "shrink.csv")
    ranks = dict(zip(table["module"], table["rank"], strict=True))
    assert len(set(ranks.values()) - {0}) > 1, "the case is one of several ranks"
    dense = deltas(model)
    values = np.sort(np.concatenate([np.linalg.svd(own, compute_uv=False)[:4] for own in dense.values()]))[::-1]
    theirs = peft_deltas(in_peft("bert", tmp_path / "small peft"))
    assert set(theirs) == {name for name, rank in ranks.items() if rank}
    for (module, _), matrix in dense.items():
        if ranks[module]:
            of_rank(theirs[module], matrix, ranks[module])
    kept = (table["norm"] ** 2 * table["energy"]).sum() / (table["norm"] ** 2).sum()
    assert 0.6 <= kept < 0.6 + np.square(values[0]) / np.square(values).sum()
    assert_equal(logits(in_peft("bert", tmp_path / "small peft")), logits(small))
    assert_equal(logits(loaded), logits(small))
    assert torch.equal(small.classifier.weight, model.classifier.weight)


PEFT: dict[str, dict[str, Any]] = {
    "a head": {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
    "rsLoRA and patterns": {
        "target_modules": ["query", "dense"], "use_rslora": True, "rank_pattern": {"query": 2}, "r": 5,
        "alpha_pattern": {"0.output.dense": 3}, "layers_to_transform": [0], "layers_pattern": "layer",
    },
    "all biases": {"target_modules": ["query"], "bias": "all"},
    "biases of LoRA's layers": {"target_modules": ["query", "value"], "bias": "lora_only"},
    "embeddings": {"target_modules": ["word_embeddings", "value"], "modules_to_save": ["classifier"]},
}  # fmt: skip


@pytest.mark.parametrize("name", PEFT)
def test_peft_adapters(name: str, tmp_path: Path) -> None:
    dense = of_peft("bert", tmp_path / "peft", **PEFT[name])
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(path)  # what was trained beside, if anything was, is moved
    save_file({key: own if "lora_" in key else own + 0.1 for key, own in tensors.items()}, path)
    before = in_peft("bert", tmp_path / "peft")
    assert main([str(tmp_path / "peft"), "--energy", "0.5", "--out", str(tmp_path / "small")]) == 0
    after, table = in_peft("bert", tmp_path / "small"), pd.read_csv(tmp_path / "small" / "shrink.csv")
    ranks = dict(zip(table["module"], table["rank"], strict=True))
    assert table["parameters"].sum() < table["parameters_before"].sum()
    theirs = peft_deltas(after)
    assert set(theirs) == {module for module, rank in ranks.items() if rank}
    for module, delta in theirs.items():
        of_rank(delta, dense[module], ranks[module])
    with torch.no_grad():  # the adapter as it was, with what was cut away cut away by hand
        for module, rank in ranks.items():
            layer = before.get_submodule(f"base_model.model.{module}")
            embedding = "default" in getattr(layer, "lora_embedding_A", {})
            U, S, Vh = np.linalg.svd(dense[module].T if embedding else dense[module])
            left = torch.from_numpy(U[:, :rank] * S[:rank] / layer.scaling["default"]).float()
            own_A, own_B = (
                (layer.lora_embedding_A["default"], layer.lora_embedding_B["default"])
                if embedding
                else (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
            )
            A, B = torch.zeros_like(own_A), torch.zeros_like(own_B)
            A[:rank], B[:, :rank] = torch.from_numpy(Vh[:rank]).float(), left
            own_A.copy_(A)
            own_B.copy_(B)
    assert_equal(logits(after), logits(before))
    loaded = tiny_model("bert")
    load_peft(loaded, tmp_path / "small")
    assert_equal(logits(loaded), logits(after))


@pytest.mark.parametrize("layout", ["own", "peft"])
def test_its_own_rank_leaves_every_number_as_it_is(layout: str, tmp_path: Path) -> None:
    of_peft("llama", tmp_path / "peft", target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    assert main([str(tmp_path / "peft"), "--rank", "4", "--format", layout, "--out", str(tmp_path / "same")]) == 0
    expected = logits(in_peft("llama", tmp_path / "peft"))
    if layout == "peft":
        before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("peft", "same"))
        assert {name: tensor.tolist() for name, tensor in after.items()} == {
            name: tensor.tolist() for name, tensor in before.items()
        }
        assert torch.equal(logits(in_peft("llama", tmp_path / "same")), expected)
    else:
        model = tiny_model("llama")
        io.load(model, tmp_path / "same")
        assert_equal(logits(model), expected)


def test_precision_is_kept(tmp_path: Path) -> None:
    of_peft("bert", tmp_path / "peft", target_modules=["query"], task_type="SEQ_CLS")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(path).items()}, path)
    assert main([str(tmp_path / "peft"), "--rank", "2", "--out", str(tmp_path / "small")]) == 0
    assert {own.dtype for own in load_file(tmp_path / "small" / path.name).values()} == {torch.bfloat16}


def test_loralib(tmp_path: Path) -> None:
    of_loralib("llama", tmp_path / "lora.pt", ["q_proj", "v_proj"], r=3, alpha=6)
    arguments = [str(tmp_path / "lora.pt"), "--alpha", "6", "--rank", "1", "--out", str(tmp_path / "small")]
    assert main(arguments) == 0
    model, state = tiny_model("llama"), torch.load(tmp_path / "lora.pt")
    io.load(model, tmp_path / "small")
    found = deltas(model)
    assert len(found) == 2 * LAYERS
    for (module, _), delta in found.items():
        A, B = (state[f"{module}.lora_{side}"].double().numpy() for side in "AB")
        of_rank(delta, 6 / 3 * B @ A, 1)


def test_slices_of_a_fused_projection_become_pefts_with_the_base_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own("gpt2", tmp_path / "own", weight_types=("q", "v", "up"))
    arguments = [str(tmp_path / "own"), "--energy", "0.7", "--format", "peft"]
    assert main([*arguments, "--out", str(tmp_path / "no")]) == 2
    assert "c_attn has q in one matrix with others" in capsys.readouterr().err
    base = base_folder("gpt2", tmp_path / "base")
    assert main([*arguments, "--base", base, "--out", str(tmp_path / "peft")]) == 0
    assert main([str(tmp_path / "own"), "--energy", "0.7", "--out", str(tmp_path / "small")]) == 0
    model = tiny_model("gpt2")
    io.load(model, tmp_path / "small")
    assert_equal(logits(in_peft("gpt2", tmp_path / "peft")), logits(model))


def test_the_account_says_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dense = own("bert", tmp_path / "own", weight_types=("q", "up"))
    assert main([str(tmp_path / "own"), "--rank", "1", "--out", str(tmp_path / "small")]) == 0
    table = pd.read_csv(tmp_path / "small" / "shrink.csv")
    for row in table.itertuples():
        S = np.linalg.svd(dense[row.module, row.weight_type], compute_uv=False)
        assert row.energy == pytest.approx(S[0] ** 2 / np.square(S).sum(), rel=1e-5)
        assert row.norm == pytest.approx(np.linalg.norm(S), rel=1e-5)
    assert table["parameters"].tolist() == (table["d"] + table["k"]).tolist()
    said, page = capsys.readouterr().out, (tmp_path / "small" / "shrink.md").read_text()
    before, after = ((tmp_path / name / io.WEIGHTS).stat().st_size for name in ("own", "small"))
    for text in (said, page):
        assert f"{before:,} bytes of tensors before, {after:,} bytes now" in text


def tokenizer(folder: Path) -> None:
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "good", "bad", "film"])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )


def test_quality_is_measured_on_validation_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = base_folder("bert", tmp_path / "base")
    tokenizer(tmp_path / "base")
    run, _ = stored_run(tmp_path / "runs", base, {"name": "lora", "r": 4, "alpha": 8, "weight_types": "q+v"})
    rows = [f"{word} film {index},{word}" for index in range(30) for word in ("good", "bad")]
    (tmp_path / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    arguments = [run.name, "--runs", str(run.parent), "--task", str(tmp_path / "films.csv")]
    settings = ["--settings", "task.max_length=8", "runtime.threads=1"]
    assert main([*arguments, "--rank", "1", "--out", str(tmp_path / "none"), *settings]) == 2
    assert "--task needs the base model" in capsys.readouterr().err
    arguments += ["--base", base]
    assert main([*arguments, "--rank", "4", "--out", str(tmp_path / "same"), *settings]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation loss" in line]
    [(before, after)] = [(line.split()[-4], line.split()[-2]) for line in lines]
    assert before == after
    assert main([*arguments, "--rank", "1", "--out", str(tmp_path / "small"), *settings]) == 0
    said = capsys.readouterr().out
    assert f"validation loss on films: {before} before" in said and "validation accuracy" in said
    assert f"{before} before, {before} now" not in said


def refused(arguments: list[str], out: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    there = sorted(out.rglob("*")) if out.exists() else None
    assert main([*arguments, "--out", str(out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert (sorted(out.rglob("*")) if out.exists() else None) == there, "nothing is written"


def test_adapters_that_cannot_be_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own("bert", tmp_path / "dora", variant="dora")
    refused([str(tmp_path / "dora"), "--rank", "2"], tmp_path / "out", "is DoRA", capsys)
    base = base_folder("bert", tmp_path / "base")
    refused([base, "--rank", "2"], tmp_path / "out", "holds whole weights, no adapter: use", capsys)
    own("bert", tmp_path / "own")
    path = tmp_path / "own" / io.CONFIG
    path.write_text(path.read_text().replace('"format": 1', '"format": 1, "init": "loftq"'))
    refused([str(tmp_path / "own"), "--rank", "2"], tmp_path / "out", "started from loftq", capsys)


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own("bert", tmp_path / "own")
    adapter, out = str(tmp_path / "own"), tmp_path / "out"
    for arguments, message in (
        (["--rank", "0"], "--rank 0: the largest rank there is 4"),
        (["--rank", "5"], "--rank 5: the largest rank there is 4"),
        (["--energy", "0"], "--energy 0: it is a share, above 0 and at most 1"),
        (["--energy", "nan"], "--energy nan: it is a share"),
        (["--params", "63"], "--params 63: one direction of one module takes 64"),
        (["--params", "9999999"], "all that there are take 1024"),
        (["--rank", "2", "--energy", "0.5"], "not allowed with argument"),
        ([], "one of the arguments --rank --energy --params is required"),
        (["--rank", "2", "--base", base_folder("llama", tmp_path / "llama")], "is it the right base model?"),
        (["--rank", "2", "--task", "rotten_tomatoes"], "--task needs the base model"),
    ):
        refused([adapter, *arguments], out, message, capsys)
    refused([adapter, "--rank", "2"], tmp_path / "own", "is there and not empty", capsys)
    refused([str(tmp_path / "nowhere"), "--rank", "2"], out, "does not exist", capsys)
    path = tmp_path / "own" / io.WEIGHTS
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    refused([adapter, "--rank", "2"], out, "holds NaN or infinity", capsys)


def test_an_adapter_that_was_not_trained_has_nothing_to_keep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model("bert")
    core.inject(model, LoRAConfig(r=2))
    core.freeze(model)
    io.save(model, tmp_path / "own")
    refused([str(tmp_path / "own"), "--energy", "0.9"], tmp_path / "out", "every update is zero", capsys)
