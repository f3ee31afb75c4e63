"""What compare says of all that a source stores: every tensor is measured, named, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from adapter_files import base_folder, of_peft
from safetensors.torch import load_file, save_file
from tiny_models import randomise, tiny_model
from torch import Tensor, nn

from analysis.compare import __main__ as compare
from analysis.compare.measures import match
from analysis.weights.pretrained import Weights
from analysis.weights.updates import Updates, read
from lora import io
from lora.config import InputError, LoRAConfig
from lora.model import freeze, inject

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> str:
    return base_folder("llama", tmp_path / "base")


def rows(source: Path, base: str | None) -> dict[str, Any]:
    return {row.name: row for row in read(source, base).account().rows}


def run(*arguments: object) -> int:
    return compare.main([*map(str, arguments)])


def trained(folder: Path, **options: Any) -> dict[str, Tensor]:
    """A peft adapter of which all that is trained has moved; the tensors of its model."""
    model = peft.get_peft_model(
        tiny_model("llama"), peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"]} | options)
    )
    randomise(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return dict(model.merge_and_unload().state_dict())


def test_what_peft_trained_beside_lora(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    after = trained(tmp_path / "peft", modules_to_save=["lm_head", "model.norm"])
    before = tiny_model("llama").state_dict()
    found = rows(tmp_path / "peft", base)
    assert set(found) == {"lm_head.weight", "model.norm.weight"}
    for name, row in found.items():
        assert row.what == "module trained whole" and row.numbers == before[name].numel()
        assert row.norm == pytest.approx(np.linalg.norm(after[name]), rel=1e-5)
        assert row.norm_change == pytest.approx(np.linalg.norm(after[name] - before[name]), rel=1e-4)
        assert row.norm_change > 0.1
    assert all(np.isnan(row.norm_change) for row in rows(tmp_path / "peft", None).values())

    assert run(tmp_path / "peft", "--base", base, "--out", tmp_path / "out") == 0
    assert "2 tensors, 2,080 parameters" in capsys.readouterr().out
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "`lm_head.weight`" in page and "module trained whole" in page and "64 x 32" in page
    table = pd.read_csv(tmp_path / "out" / "beside.csv")
    assert list(table["parameter"]) == ["lm_head.weight", "model.norm.weight"] and table["norm_change"].notna().all()
    assert pd.read_csv(tmp_path / "out" / "summary.csv")["beside_parameters"].item() == 64 * 32 + 32


def test_magnitudes_and_biases(tmp_path: Path) -> None:
    of_peft("bert", tmp_path / "dora", target_modules=["query"], use_dora=True)
    magnitudes = rows(tmp_path / "dora", None)
    assert [row.what for row in magnitudes.values()] == ["magnitudes of DoRA"] * 2
    of_peft("bert", tmp_path / "biases", target_modules=["query"], bias="lora_only")
    biases = rows(tmp_path / "biases", base_folder("bert", tmp_path / "base"))
    assert set(biases) == {f"bert.encoder.layer.{n}.attention.self.query.bias" for n in range(2)}
    assert all(row.what == "bias" and row.norm_change == 0 for row in biases.values())


def test_heads_of_an_adapter_of_this_suite(tmp_path: Path) -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2))
    freeze(model, ["classifier"])
    io.save(model, tmp_path)
    assert {name: row.numbers for name, row in rows(tmp_path, None).items()} == {
        "classifier.weight": 2 * 32, "classifier.bias": 2,
    }  # fmt: skip


@pytest.mark.parametrize("source", ["peft", "own", "full"])
def test_a_number_that_is_none_is_named(
    source: str, tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / source
    if source == "peft":
        of_peft("llama", folder, target_modules=["q_proj"])
    elif source == "own":
        model = tiny_model("llama")
        inject(model, LoRAConfig(r=4))
        freeze(model)
        io.save(model, folder)
    else:
        tiny_model("llama", seed=1).save_pretrained(folder)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in tensors if "1.self_attn.q_proj" in name)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    assert run(folder, "--base", base, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name in error and "holds NaN or infinity" in error


def renamed(folder: Path, change: Callable[[str], str]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    save_file({change(name): value for name, value in tensors.items()}, folder / WEIGHTS)
    return folder


TOWER = "model.vision_tower.vision_model.encoder.layers"


def test_a_vision_tower_is_not_measured_against_a_text_model(tmp_path: Path, base: str) -> None:
    of_peft("llama", tmp_path / "vision", target_modules=["q_proj"])
    vision = renamed(tmp_path / "vision", lambda name: name.replace("model.layers", TOWER, 1))
    with pytest.raises(InputError, match=rf"has no weight type 'q' in {TOWER}.0.self_attn.q_proj"):
        read(vision, base)
    both = of_peft("llama", tmp_path / "both", target_modules=["q_proj"])
    tensors = load_file(tmp_path / "both" / WEIGHTS)
    more = {name.replace("model.layers", TOWER, 1): value + 1 for name, value in tensors.items()}
    text = {name.replace("model.layers", "model.language_model.layers", 1): value for name, value in tensors.items()}
    save_file(text | more, tmp_path / "both" / WEIGHTS)
    found = read(tmp_path / "both", base)
    assert any(note.startswith(f"2 of its modules are not in {base} ({TOWER}.0") for note in found.notes)
    weights = Weights.open(base)
    W = tiny_model("llama").state_dict()
    for update in found.values():
        assert weights.has(update.module) == ("language_model" in update.module)
        if weights.has(update.module):
            layer = update.module.split(".")[3]
            expected = W[f"model.layers.{layer}.self_attn.q_proj.weight"]
            torch.testing.assert_close(weights.matrix(update.module, "q"), expected)
            assert update.norm() == pytest.approx(np.linalg.norm(both[f"model.layers.{layer}.self_attn.q_proj"]))
    assert run(tmp_path / "both", "--base", base, "--out", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "modules.csv")
    assert table["amplification"].notna().tolist() == table["module"].str.contains("language_model").tolist()


@pytest.mark.parametrize(
    "prefix", ["model.language_model.layers", "language_model.model.layers", "model.layers", "layers"]
)
def test_the_same_tower_under_other_names(prefix: str, tmp_path: Path, base: str) -> None:
    of_peft("llama", tmp_path / "one", target_modules=["q_proj"])
    of_peft("llama", tmp_path / "other", target_modules=["q_proj"])
    one, other = tmp_path / "one", renamed(tmp_path / "other", lambda name: name.replace("model.layers", prefix, 1))
    modules = match([read(one, base), read(other, base)])
    assert len(modules) == 2 and all(set(module.updates) == {0, 1} for module in modules)
    of_peft("llama", tmp_path / "vision", target_modules=["q_proj"])
    vision = renamed(tmp_path / "vision", lambda name: name.replace("model.layers", TOWER, 1))
    assert len(match([read(other), read(vision)])) == 4


def codes(folder: Path, change: Callable[[dict[str, Tensor], str], dict[str, Tensor]]) -> Path:
    """The tiny model with one weight stored as codes."""
    tiny_model("llama").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(change(tensors, name), folder / "model.safetensors", {"format": "pt"})
    return folder


def without(tensors: dict[str, Tensor], name: str, more: dict[str, Tensor]) -> dict[str, Tensor]:
    module = name.removesuffix("weight")
    return {key: value for key, value in tensors.items() if key != name} | {
        module + key: own for key, own in more.items()
    }


QUANTISED: dict[str, Callable[[dict[str, Tensor], str], dict[str, Tensor]]] = {
    "8-bit float, block scales": lambda t, n: t | {n: t[n].to(torch.float8_e4m3fn), f"{n}_scale_inv": torch.ones(1, 1)},
    "8-bit float, one scale": lambda t, n: t | {n: t[n].to(torch.float8_e4m3fn), f"{n}_scale": torch.ones(1)},
    "8-bit float alone": lambda t, n: t | {n: t[n].to(torch.float8_e4m3fn)},
    "scales beside 16 bits": lambda t, n: t | {n: t[n].bfloat16(), f"{n}_scale": torch.ones(32, 1)},
    "int8 of bitsandbytes": lambda t, n: t | {n: t[n].to(torch.int8), n.replace("weight", "SCB"): torch.ones(32)},
    "nf4 of bitsandbytes": lambda t, n: t | {n: torch.zeros(512, 1, dtype=torch.uint8), f"{n}.absmax": torch.ones(16)},
    "GPTQ": lambda t, n: without(t, n, {"qweight": torch.ones(4, 32, dtype=torch.int32), "scales": torch.ones(1, 32)}),
    "AWQ": lambda t, n: without(t, n, {"qweight": torch.ones(32, 4, dtype=torch.int32), "qzeros": torch.ones(1, 4)}),
    "compressed": lambda t, n: without(t, n, {"weight_packed": torch.ones(32, 4, dtype=torch.int32)}),
}  # fmt: skip


@pytest.mark.parametrize("case", QUANTISED)
def test_codes_are_never_read_as_weights(
    case: str, tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the base of an adapter, as the base of a checkpoint, and as a checkpoint."""
    folder = codes(tmp_path / "codes", QUANTISED[case])
    of_peft("llama", tmp_path / "peft", target_modules=["q_proj"])
    for source, own in ((tmp_path / "peft", folder), (base, folder), (folder, base)):
        assert run(source, "--base", own, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "quantised" in error and "layers.0.self_attn.q_proj" in error


def mixtral(folder: Path, change: Callable[[nn.Module], None] | None = None) -> Path:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    config = transformers.MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=3)
    torch.manual_seed(0)
    model = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        if change:
            change(model)
    model.save_pretrained(folder)
    return folder


def shift(*names: str) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if any(part in name for part in names):
                parameter += 0.5

    return change


@pytest.mark.parametrize("part", ["experts", "embed_tokens", "lm_head", "norm"])
def test_what_is_in_no_weight_matrix_is_told(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = mixtral(tmp_path / "before"), mixtral(tmp_path / "after", shift(part))
    found = rows(after, str(before))
    stored = {name: load_file(folder / "model.safetensors") for name, folder in (("a", after), ("b", before))}
    changed = {name for name in stored["a"] if not torch.equal(stored["a"][name], stored["b"][name])}
    assert changed and set(found) == changed
    for row in found.values():
        assert row.norm_change == pytest.approx(0.5 * row.numbers**0.5, rel=1e-4)
    assert run(after, "--base", before, "--out", tmp_path / "out") == 0
    assert f"{len(changed)} tensor" in capsys.readouterr().out


def dense(updates: Updates) -> dict[Any, np.ndarray]:
    return {site: update.apply(np.eye(update.shape[1])) for site, update in updates.items()}


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {prefix + name: value for name, value in state.items()}


STATES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda state: state, "model": lambda state: {"model": state, "epoch": 3},
    "state_dict": lambda state: {"state_dict": prefixed("model.")(state), "optimizer": {"lr": 3}},
    "module": lambda state: {"module": state}, "module.": prefixed("module."), "_orig_mod.": prefixed("_orig_mod."),
    "both": lambda state: {"model": prefixed("module._orig_mod.")(state)},
    "parameters": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_state_dicts_of_wrapped_models(case: str, tmp_path: Path, base: str) -> None:
    tuned = tiny_model("llama", seed=1)
    tuned.save_pretrained(tmp_path / "tuned")
    expected = dense(read(tmp_path / "tuned", base))
    torch.save(STATES[case](tuned.state_dict()), tmp_path / "state.pt")
    found = read(tmp_path / "state.pt", base)
    for site, delta in dense(found).items():
        np.testing.assert_allclose(delta, expected[site], atol=1e-6)
    assert len(found) == len(expected)
    assert {row.name.rpartition(".layers.")[2].removeprefix("model.") for row in found.account().rows} != set()


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("library", ["peft", "own"])
def test_a_model_with_adapters_in_it_is_refused(library: str, merged: bool, tmp_path: Path, base: str) -> None:
    """Whether B A is in its weights already, its state does not tell."""
    model: Any = tiny_model("llama")
    if library == "peft":
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
        if merged:
            model.merge_adapter()
    else:
        inject(model, LoRAConfig(r=2))
        if merged:
            from lora.model import merge

            merge(model)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    with pytest.raises(InputError, match="merge"):
        read(tmp_path / "state.pt", base)
    left = {name: value for name, value in model.state_dict().items() if "lora_" not in name}
    if library == "peft":
        torch.save(left, tmp_path / "state.pt")
        with pytest.raises(InputError, match="with an adapter in it, merged or not .*q_proj.base_layer.weight"):
            read(tmp_path / "state.pt", base)


def test_two_stored_names_for_one_matrix_are_refused(tmp_path: Path, base: str) -> None:
    state = tiny_model("llama", seed=1).state_dict()
    torch.save(state | {f"language_model.{name}": value + 1 for name, value in state.items()}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=r"holds .* twice, as model..* and as language_model"):
        read(tmp_path / "state.pt", base)


def test_what_a_checkpoint_lacks_is_told(tmp_path: Path, base: str) -> None:
    tiny_model("llama", seed=1).save_pretrained(tmp_path / "tuned")
    path = tmp_path / "tuned" / "model.safetensors"
    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors | {"score.weight": torch.ones(2, 32)}, path, {"format": "pt"})
    account = read(tmp_path / "tuned", base).account()
    assert f"1 tensor (lm_head.weight) of {base} not in it, and not compared" in account.notes
    assert {row.name: row.what for row in account.rows}["score.weight"] == "not in the base model"


def test_a_config_of_a_model_is_not_an_adapter(tmp_path: Path, base: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match="adapter_model.safetensors does not exist"):
        read(tmp_path / "x", base)
