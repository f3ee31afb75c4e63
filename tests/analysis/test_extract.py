"""The adapter of a full checkpoint is the best approximation of its update, and works in peft and in this suite."""

import itertools
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from adapter_files import base_folder, of_peft, stored_run
from safetensors.torch import load_file, save_file
from tiny_models import assert_equal, logits, tiny_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from analysis.extract import updates
from analysis.extract.__main__ import main
from analysis.extract.delta import Delta, delta
from analysis.weights.pairs import Pair
from lora import io
from lora import model as core
from lora.config import LoRAConfig
from lora.model import lora_layers

KINDS = ("llama", "gpt2", "bert", "t5", "gpt_neox")


def tuned(kind: str, folder: Path, rank: int | None = 2, others: bool = False, **options: Any) -> nn.Module:
    """The tiny model with an update of this rank (None: any) in every linear matrix, stored in shards."""
    model = tiny_model(kind, **options)
    torch.manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | Conv1D) and module is not model.get_output_embeddings():
                d, k = module.weight.shape
                low = torch.randn(d, rank) @ torch.randn(rank, k) if rank else torch.randn(d, k)
                module.weight += 0.02 * low
        for parameter in model.parameters() if others else ():
            if parameter.ndim == 1:
                parameter += 0.05 * torch.randn_like(parameter)
        if others:
            model.get_input_embeddings().weight.add_(0.05)
    model.save_pretrained(folder, max_shard_size="20KB")
    return model


def in_peft(kind: str, folder: Path, **options: Any) -> nn.Module:
    return peft.PeftModel.from_pretrained(tiny_model(kind, **options), str(folder)).eval()


def run(tmp_path: Path, *arguments: str, out: str = "out") -> int:
    return main([str(tmp_path / "tuned"), "--base", str(tmp_path / "base"), *arguments, "--out", str(tmp_path / out)])


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_of_low_rank_is_found_again(kind: str, tmp_path: Path) -> None:
    """Out of sharded files, for the class that the config names, whatever it calls its modules."""
    base_folder(kind, tmp_path / "base")
    model = tuned(kind, tmp_path / "tuned")
    assert len(list((tmp_path / "tuned").glob("*.safetensors"))) > 1
    assert (
        run(tmp_path, "--rank", "2", "--keep-others") == 0
    )  # the head of a classifier is no matrix of the base's body
    assert_equal(logits(in_peft(kind, tmp_path / "out")), logits(model))
    table = pd.read_csv(tmp_path / "out" / "extract.csv")
    assert (table["energy"] > 1 - 1e-6).all() and (table["rank"] == 2).all()
    assert run(tmp_path, "--rank", "2", "--keep-others", "--format", "own", out="own") == 0
    here = tiny_model(kind)
    io.load(here, tmp_path / "own")
    assert_equal(logits(here), logits(model))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_approximation_of_the_rank_is_better(kind: str, tmp_path: Path) -> None:
    base_folder(kind, tmp_path / "base")
    model, before = tuned(kind, tmp_path / "tuned", rank=None), tiny_model(kind)
    assert run(tmp_path, "--rank", "5", "--format", "own") == 0
    io.load(before, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "extract.csv").set_index("module")
    layers = dict(lora_layers(before))
    assert set(layers) == set(table.index)
    for name, layer in layers.items():
        [part] = layer.parts
        change = (model.get_submodule(name).weight - layer.weight).detach().double().numpy()
        exact = change.T if kind == "gpt2" else change
        S = np.linalg.svd(exact, compute_uv=False)
        error = np.linalg.norm(exact - layer.delta_w(part.name).detach().double().numpy())
        assert error == pytest.approx(np.linalg.norm(S[5:]), rel=1e-5)
        assert table.loc[name, "norm"] == pytest.approx(np.linalg.norm(S), rel=1e-5)
        assert table.loc[name, "energy"] == pytest.approx(np.square(S[:5]).sum() / np.square(S).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["own", "peft"])
def test_all_else_is_kept_if_asked_for(kind: str, layout: str, tmp_path: Path) -> None:
    base_folder(kind, tmp_path / "base")
    model = tuned(kind, tmp_path / "tuned", others=True)
    assert run(tmp_path, "--rank", "2", "--keep-others", "--format", layout) == 0
    if layout == "peft":
        found = in_peft(kind, tmp_path / "out")
    else:
        found = tiny_model(kind)
        io.load(found, tmp_path / "out")
    assert_equal(logits(found), logits(model))
    assert pd.read_csv(tmp_path / "out" / "beside.csv")["kept"].all()


@pytest.mark.parametrize("layout", ["own", "peft"])
def test_tied_embeddings_stay_tied(layout: str, tmp_path: Path) -> None:
    tie = {"tie_word_embeddings": True}
    tiny_model("llama", **tie).save_pretrained(tmp_path / "base")
    model = tuned("llama", tmp_path / "tuned", others=True, **tie)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert run(tmp_path, "--rank", "2", "--keep-others", "--format", layout) == 0
    if layout == "peft":
        found = in_peft("llama", tmp_path / "out", **tie)
    else:
        found = tiny_model("llama", **tie)
        io.load(found, tmp_path / "out")
    assert_equal(logits(found), logits(model))


def test_what_is_not_in_the_adapter_is_listed_with_its_norm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_folder("llama", tmp_path / "base")
    model = tuned("llama", tmp_path / "tuned", others=True)
    assert run(tmp_path, "--rank", "2") == 0
    rows = pd.read_csv(tmp_path / "out" / "beside.csv").set_index("name")
    before = tiny_model("llama").state_dict()
    changed = {
        name: (own.double() - before[name].double()).norm().item()
        for name, own in model.state_dict().items()
        if "proj" not in name and not torch.equal(own, before[name])
    }
    assert set(rows.index) == set(changed) and not rows["kept"].any()
    for name, norm in changed.items():
        assert rows.loc[name, "norm_change"] == pytest.approx(norm, rel=1e-5)
    said = capsys.readouterr().out
    assert "NOT in the adapter, though changed: 6 (model.embed_tokens.weight changed by" in said
    assert "1 tensors beside the weight matrices are the base model's" in said
    assert set(load_file(tmp_path / "out" / "adapter_model.safetensors")) == {
        f"base_model.model.{name.removesuffix('.weight')}.lora_{side}.weight"
        for name in model.state_dict() if "proj" in name for side in "AB"
    }  # fmt: skip


def test_ranks_by_energy_and_by_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_folder("bert", tmp_path / "base")
    tuned("bert", tmp_path / "tuned", rank=None)
    assert run(tmp_path, "--energy", "0.7") == 0
    table = pd.read_csv(tmp_path / "out" / "extract.csv")
    energy = table["norm"] ** 2
    assert 0.7 <= (energy * table["energy"]).sum() / energy.sum() < 0.72
    assert run(tmp_path, "--params", "1000", out="few") == 0
    few = pd.read_csv(tmp_path / "few" / "extract.csv")
    assert 1000 - 80 < few["parameters"].sum() <= 1000
    assert set(few["module"][few["rank"] == 0]) == set(few["module"]) - {
        target.module for target in _peft_targets(tmp_path / "few")
    }
    capsys.readouterr()
    assert run(tmp_path, "--energy", "0.7", "--most", "2", out="no") == 2
    assert "2 of a matrix at most, hold 0." in capsys.readouterr().err


def _peft_targets(folder: Path) -> list[Any]:
    from lora.formats.peft import read_peft

    return list(read_peft(folder).pieces)


def test_a_file_of_weights_and_a_run(tmp_path: Path) -> None:
    base = base_folder("bert", tmp_path / "base")
    model = tuned("bert", tmp_path / "tuned", others=True)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    arguments = ["--base", base, "--rank", "2", "--keep-others", "--format", "own"]
    assert main([str(tmp_path / "weights.pt"), *arguments, "--out", str(tmp_path / "of file")]) == 0
    found = tiny_model("bert")
    io.load(found, tmp_path / "of file")
    assert_equal(logits(found), logits(model))

    folder, changes = stored_run(tmp_path / "runs", base, {"name": "full"})
    arguments = [folder.name, "--runs", str(folder.parent), "--base", base, "--rank", "32"]
    assert main([*arguments, "--out", str(tmp_path / "of run")]) == 0
    table = pd.read_csv(tmp_path / "of run" / "extract.csv")
    for row in table.itertuples():
        assert row.norm == pytest.approx(np.linalg.norm(changes[row.module, ""]), rel=1e-4)
    assert {target.module for target in io.read(tmp_path / "of run").targets} == set(table["module"])


def test_factors_in_16_bits(tmp_path: Path) -> None:
    base_folder("llama", tmp_path / "base")
    tuned("llama", tmp_path / "tuned")
    assert run(tmp_path, "--rank", "2", "--dtype", "bfloat16") == 0
    assert {own.dtype for own in load_file(tmp_path / "out" / "adapter_model.safetensors").values()} == {torch.bfloat16}


def test_one_matrix_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_folder("llama", tmp_path / "base")
    tuned("llama", tmp_path / "tuned")
    alive: list[weakref.ref[np.ndarray]] = []

    def watched(pair: Pair, module: str) -> Delta:
        assert all(reference() is None for reference in alive)
        found = delta(pair, module)
        alive.append(weakref.ref(found.matrix))
        return found

    monkeypatch.setattr(updates, "delta", watched)
    assert run(tmp_path, "--rank", "2") == 0
    assert len(alive) == 14


def test_parts_of_a_matrix_are_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base_folder("gpt2", tmp_path / "base")
    tuned("gpt2", tmp_path / "tuned", rank=None)
    norms = []
    for out, part in (("whole", 1 << 22), ("rows", 100)):
        monkeypatch.setattr("analysis.extract.delta.PART", part)
        assert run(tmp_path, "--rank", "3", out=out) == 0
        norms.append(pd.read_csv(tmp_path / out / "extract.csv")["norm"])
    assert np.allclose(*norms, rtol=1e-6)
    first, second = (load_file(tmp_path / out / "adapter_model.safetensors") for out in ("whole", "rows"))
    assert all(torch.allclose(first[name], own, atol=1e-6) for name, own in second.items())


def refused(tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, other = base_folder("llama", tmp_path / "base"), base_folder("bert", tmp_path / "other")
    tuned("llama", tmp_path / "tuned")
    wide = tiny_model("llama", intermediate_size=64)
    wide.save_pretrained(tmp_path / "wide")
    of_peft("llama", tmp_path / "peft", target_modules=["q_proj"])
    checkpoint, rank = str(tmp_path / "tuned"), ["--rank", "2"]
    for arguments, message in (
        ([checkpoint, *rank], "its updates need the model it started from, --base"),
        ([base, *rank, "--base", base], "number for number: there is no update to extract"),
        ([checkpoint, *rank, "--base", other], "has no weight matrix of"),
        ([checkpoint, *rank, "--base", str(tmp_path / "wide")], "is of another model than"),
        ([checkpoint, "--rank", "0", "--base", base], "--rank 0: the largest rank there is 32"),
        ([checkpoint, "--rank", "33", "--base", base], "--rank 33: the largest rank there is 32"),
        ([checkpoint, "--energy", "1.5", "--base", base], "--energy 1.5: it is a share"),
        ([checkpoint, "--params", "10", "--base", base], "--params 10: one direction of one module takes 48"),
        ([checkpoint, *rank, "--base", base, "--tolerance", "0"], "--tolerance 0: it must be above 0"),
        ([str(tmp_path / "peft"), *rank, "--base", base], "is an adapter already: use python -m analysis.shrink"),
        ([str(tmp_path / "nowhere"), *rank, "--base", base], "does not exist"),
    ):
        refused(tmp_path, arguments, message, capsys)


def test_damaged_and_quantised_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = base_folder("llama", tmp_path / "base")
    model = tiny_model("llama")
    arguments = [str(tmp_path / "w.safetensors"), "--base", base, "--rank", "2"]
    name = "model.layers.1.mlp.up_proj.weight"
    for change, message in (
        ({name: model.state_dict()[name] * float("nan")}, f"{name} holds NaN or infinity"),
        ({name: model.state_dict()[name].to(torch.int8)}, "is stored as int8, which is no weight by itself"),
        ({f"{name}_scale_inv": torch.ones(1)}, "is quantised"),
        ({name: model.state_dict()[name][1:].contiguous()}, "quantised or damaged weights cannot be read"),
    ):
        save_file({key: own.clone() for key, own in (model.state_dict() | change).items()}, tmp_path / "w.safetensors")
        refused(tmp_path, arguments, message, capsys)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base_folder("llama", tmp_path / "base")
    tuned("llama", tmp_path / "tuned")
    assert run(tmp_path, "--rank", "2", out="tuned") == 2
    assert "is there and not empty" in capsys.readouterr().err


def test_an_adapter_of_a_merged_model_is_that_adapter(tmp_path: Path) -> None:
    """Merged and taken out again: the products B A agree, module by module, and unadapted modules get none."""
    base = base_folder("llama", tmp_path / "base")
    model = tiny_model("llama")
    core.inject(model, LoRAConfig(r=3, alpha=6, weight_types=("q", "down")))
    torch.manual_seed(2)
    for _, layer in lora_layers(model):
        for parameter in itertools.chain(layer.lora_A.values(), layer.lora_B.values()):
            nn.init.normal_(parameter, std=0.1)
    exact = {name: layer.delta_w(part.name).detach() for name, layer in lora_layers(model) for part in layer.parts}
    core.merge(model)
    inject_free = {name: own.clone() for name, own in model.state_dict().items() if ".lora_" not in name}
    save_file({name.replace(".base.", "."): own for name, own in inject_free.items()}, tmp_path / "merged.safetensors")
    arguments = [str(tmp_path / "merged.safetensors"), "--base", base, "--rank", "3", "--format", "own"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    back = tiny_model("llama")
    io.load(back, tmp_path / "out")
    found = {name: layer.delta_w(part.name).detach() for name, layer in lora_layers(back) for part in layer.parts}
    assert set(found) == set(exact)
    for name, own in found.items():
        assert (own - exact[name]).norm() <= 1e-5 * exact[name].norm()
