"""Adapter files as people have them, and as they should not have them: read as peft reads them, or refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loralib
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import assert_equal, assert_identical, logits, randomise, state, tiny_model
from torch import Tensor, nn

from analysis import updates
from lora import io
from lora.config import InputError, LoRAConfig
from lora.formats import patterns
from lora.formats.peft import read_peft
from lora.inject import freeze, inject
from lora.interop import load_loralib, load_peft
from lora.tensor_files import open_tensors

WEIGHTS, PICKLED, CONFIG = "adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A peft adapter of the tiny Llama: r = 4, lora_alpha = 12, and 48 in one module."""
    return write(tmp_path / "adapter", alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})


def write(folder: Path, **options: Any) -> Path:
    given = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]} | options
    model = peft.get_peft_model(tiny_model("llama"), peft.LoraConfig(**given))
    randomise(model)
    model.save_pretrained(folder)
    return folder


def by_peft(folder: Path) -> Tensor:
    return logits(peft.PeftModel.from_pretrained(tiny_model("llama"), folder).eval()).detach()


def loaded(folder: Path) -> Tensor:
    model = tiny_model("llama")
    load_peft(model, folder)
    return logits(model).detach()


def rename(folder: Path, change: Callable[[str], str]) -> None:
    save_file({change(name): value for name, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def edit(folder: Path, **options: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


def compare(folder: Path) -> None:
    """Read all of an adapter as compare does."""
    found = updates.read(folder)
    for update in found.values():
        update.norm()
    found.account()


def assert_refused(folder: Path, match: str, model: nn.Module | None = None) -> None:
    """By load_peft, with the model as it was, and by compare's reader, both in one line."""
    model = model or tiny_model("llama")
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        load_peft(model, folder)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800
    assert_identical(model, before)
    with pytest.raises(InputError, match=match):
        compare(folder)


PREFIXES = (
    *("model.", "_forward_module.model.", "_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."),
    "_fsdp_wrapped_module.",
)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_before_the_names(prefix: str, adapter: Path) -> None:
    expected = by_peft(adapter)
    rename(adapter, lambda name: prefix + name)
    assert_equal(loaded(adapter), expected)
    scalings = {target.module: target.scaling for target in read_peft(adapter).pieces}
    assert scalings.pop("model.layers.0.self_attn.q_proj") == 12 and set(scalings.values()) == {3}


def test_wrappers_within_the_names(tmp_path: Path) -> None:
    """Of the base, or of its layers: as peft sees them, a pattern that starts at the beginning does not match."""
    plain = write(tmp_path / "plain")
    expected = by_peft(plain)
    inner = "base_model.model._orig_mod."
    rename(plain, lambda name: name.replace("base_model.model.", inner, 1))
    assert_equal(loaded(plain), expected)
    edit(plain, alpha_pattern={"q_proj": 12})  # the same with and without the wrapper
    assert_equal(loaded(plain), expected)
    edit(plain, alpha_pattern={"^model.layers.0.self_attn.q_proj": 48})
    assert_refused(plain, r"give model.layers.0.self_attn.q_proj another r or lora_alpha without the wrapper")


def test_a_module_called_module_is_no_wrapper(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"module": nn.ModuleDict({"body": nn.Linear(6, 6)})})

    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=2, target_modules=["body"]))
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours, x = make(), torch.randn(3, 6)
    load_peft(ours, tmp_path)
    assert_equal(ours["module"]["body"](x), theirs.base_model.model["module"]["body"](x))


@pytest.mark.parametrize("name", ["default", "sql"])
def test_an_adapters_name_in_the_keys(name: str, adapter: Path) -> None:
    expected = by_peft(adapter)
    rename(adapter, lambda key: key.replace(".weight", f".{name}.weight"))
    assert_equal(loaded(adapter), expected)


def test_several_adapters_in_one_file_are_refused(adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    more = {name.replace(".weight", f".{own}.weight"): value.clone() for name, value in tensors.items() for own in "ab"}
    save_file(more, adapter / WEIGHTS)
    assert_refused(adapter, r"holds several adapters \(a, b\)")


@pytest.mark.parametrize("ending", ["", ".weight", ".default.weight", ".default"])
def test_names_of_doras_magnitudes(ending: str, tmp_path: Path) -> None:
    folder = write(tmp_path, use_dora=True)
    expected = by_peft(folder)
    rename(folder, lambda name: re.sub("lora_magnitude_vector$", f"lora_magnitude_vector{ending}", name))
    assert_equal(loaded(folder), expected)


def test_patterns_are_those_of_peft(tmp_path: Path) -> None:
    rules = [
        {"q_proj": 1, "layers.0.self_attn.q_proj": 99}, {"layers.0.self_attn.q_proj": 99, "q_proj": 1},
        {"proj": 7}, {r"layers\.\d+\..*(q|v)_proj": 5}, {"^model.layers.1.self_attn.v_proj": 3, "attn.v_proj": 6},
        {r".*\.0\..*": 4}, {"model.layers.[01].self_attn.q_proj": 11}, {"_proj|x": 5}, {"q_proj$": 8},
    ]  # fmt: skip
    for index, rule in enumerate(rules):
        folder = write(tmp_path / str(index), alpha_pattern=rule)
        assert_equal(loaded(folder), by_peft(folder), str(rule))


def test_safetensors_before_pickled_as_peft_chooses(adapter: Path) -> None:
    expected = by_peft(adapter)
    torch.save({name: value + 1 for name, value in load_file(adapter / WEIGHTS).items()}, adapter / PICKLED)
    assert_equal(by_peft(adapter), expected)
    assert_equal(loaded(adapter), expected)
    assert any("adapter_model.bin is there too" in note for note in updates.read(adapter).account().notes)


VARIANTS = {
    "monteclora": {"monteclora_config": {}}, "velora": {"velora_config": {"num_groups": 4}},
    "mica": {"init_lora_weights": "mica"}, "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"}, "not from zero": {"init_lora_weights": False},
    "biases": {"bias": "all"}, "layers": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "excluded": {"exclude_modules": r".*\.0\..*"}, "all linear": {"target_modules": "all-linear"},
}  # fmt: skip


@pytest.mark.parametrize("case", VARIANTS)
def test_variants_that_are_lora_at_inference(case: str, tmp_path: Path) -> None:
    folder = write(tmp_path, **VARIANTS[case])
    model = tiny_model("llama")
    load_peft(model, folder)
    assert_equal(logits(model), by_peft(folder))
    found = updates.read(folder)
    stored = len(load_file(folder / WEIGHTS))
    used = 2 * len(found) + len(found.account().rows)
    unused = sum(int(number) for note in found.account().notes for number in re.findall(r"^(\d+) tensor", note))
    assert used + unused == stored  # every one is accounted for
    assert bool(unused) == (case in ("monteclora", "velora"))


OTHERS: dict[str, dict[str, Any]] = {
    "lora_bias": {"lora_bias": True}, "trainable_token_indices": {"trainable_token_indices": [1, 2]},
    "target_parameters": {"target_parameters": ["k_proj.weight"]}, "layer_replication": {"layer_replication": [[0, 2]]},
    "kasa_config": {"kasa_config": {}}, "alora_invocation_tokens": {"alora_invocation_tokens": [1]},
    "olora": {"init_lora_weights": "olora"}, "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
}  # fmt: skip


@pytest.mark.parametrize("option", OTHERS)
def test_other_equations_are_refused_by_name(option: str, tmp_path: Path) -> None:
    assert_refused(write(tmp_path, **OTHERS[option]), f"this peft adapter uses {option}, which is not h = W0 x")


def test_an_option_of_a_later_peft_is_refused(adapter: Path) -> None:
    edit(adapter, use_newra=True, other_option=None)
    assert_refused(adapter, "uses use_newra, .* as far as it is known here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_by_name(value: float, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    tensors[f"{Q}.lora_B.weight"][3, 1] = value
    save_file(tensors, adapter / WEIGHTS)
    assert_refused(adapter, rf"{Q}.lora_B.weight holds NaN or infinity")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_types_that_are_no_weights_are_refused_by_name(dtype: torch.dtype, adapter: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    torch.save(tensors | {f"{Q}.lora_A.weight": tensors[f"{Q}.lora_A.weight"].to(dtype)}, adapter / PICKLED)
    (adapter / WEIGHTS).unlink()
    assert_refused(adapter, rf"{Q}.lora_A.weight is stored as {str(dtype)[6:]}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype, adapter: Path) -> None:
    save_file({name: value.to(dtype) for name, value in load_file(adapter / WEIGHTS).items()}, adapter / WEIGHTS)
    assert_equal(loaded(adapter), by_peft(adapter))


ADDED = {
    "no module of the model": ("none.such.weight", "for another model: it trained none.such.weight"),
    "a name of LoRA's that is none": ("model.layers.0.self_attn.q_proj.lora_C.weight", "lora_C.weight is no tensor of"),
    "a module that is not targeted": ("model.layers.0.mlp.up_proj", "up_proj, which target_modules and its like"),
    "a weight under an adapter": ("model.layers.0.self_attn.q_proj.weight", "q_proj.base_layer.weight"),
}


@pytest.mark.parametrize("case", ADDED)
def test_tensors_that_peft_would_leave_are_refused_by_name(case: str, adapter: Path) -> None:
    name, match = ADDED[case]
    more = {f"base_model.model.{name}": torch.zeros(32, 32)}
    if name.endswith("up_proj"):
        more = {f"base_model.model.{name}.lora_A.weight": torch.ones(4, 32),
                f"base_model.model.{name}.lora_B.weight": torch.ones(48, 4)}  # fmt: skip
    save_file(load_file(adapter / WEIGHTS) | more, adapter / WEIGHTS)
    model = tiny_model("llama")
    before = state(model)
    with pytest.raises(InputError, match=match):
        load_peft(model, adapter)
    assert_identical(model, before)


def test_a_load_that_attaches_nothing_is_an_error(adapter: Path) -> None:
    save_file({}, adapter / WEIGHTS)
    assert_refused(adapter, "adapts no module: adapter_model.safetensors has no lora_A and lora_B")


OTHER_LIBRARIES = {
    "adapters": {"bert.encoder.layer.0.attention.self.query.loras.sql.lora_A": torch.ones(4, 8)},
    "torchtune": {"layers.0.attn.q_proj.lora_a.weight": torch.ones(4, 8)},
    "MLX": {"model.layers.0.self_attn.q_proj.lora_a": torch.ones(8, 4)},
    "kohya": {"lora_unet_down_blocks_0_attentions_0_to_q.lora_down.weight": torch.ones(4, 8)},
    "litgpt": {
        "transformer.h.0.attn.qkv.lora_A": torch.ones(4, 8),
        "transformer.h.0.attn.qkv.lora_B": torch.ones(8, 4),
    },
    "diffusers": {"unet.down_blocks.0.attn1.to_q.lora.down.weight": torch.ones(4, 8)},
    "LyCORIS": {"down.0.hada_w1_a": torch.ones(4, 8)},
    "NeMo": {"model.layers.0.self_attention.adapter_layer.lora_kqv_adapter.linear_in.weight": torch.ones(4, 8)},
}


@pytest.mark.parametrize("library", OTHER_LIBRARIES)
def test_files_of_other_libraries_are_refused_by_name(library: str, tmp_path: Path) -> None:
    for name, save in (("adapters.safetensors", save_file), ("adapter_0.pt", torch.save)):
        save(OTHER_LIBRARIES[library], tmp_path / name)
        with pytest.raises(InputError, match=f"is an adapter of {library}"):
            updates.read(tmp_path / name, alpha=8)
        with pytest.raises(InputError, match=f"is an adapter of {library}"):
            load_loralib(tiny_model("llama"), tmp_path / name, LoRAConfig())


@pytest.mark.parametrize(
    ("config", "library"),
    [
        (
            {"config": {"architecture": "lora", "r": 8}, "model_class": "BertModel", "version": "adapters.1.0.0"},
            "adapters",
        ),
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}, "MLX"),
    ],
)
def test_folders_of_other_libraries_are_refused_by_name(config: dict[str, Any], library: str, adapter: Path) -> None:
    (adapter / CONFIG).write_text(json.dumps(config))
    assert_refused(adapter, f"is an adapter of {library}")


def test_a_file_of_peft_without_its_config_is_refused(adapter: Path) -> None:
    with pytest.raises(InputError, match="does not tell their scaling: give the folder"):
        updates.read(adapter / WEIGHTS)


def test_a_convolution_of_loralib_is_refused(tmp_path: Path) -> None:
    """r = 4 of a kernel of 3 is stored in matrices of 12 rows: as a linear layer's it would have r = 12."""
    for name in ("conv", "0", "features.1"):
        layer = loralib.Conv2d(8, 16, 3, r=4, lora_alpha=12)
        assert layer.lora_A.shape == (12, 24) and layer.scaling == 3
        torch.save({f"{name}.lora_A": layer.lora_A, f"{name}.lora_B": layer.lora_B}, tmp_path / "lora.pt")
        with pytest.raises(InputError, match=f"{name} may be a Conv2d of loralib"):
            updates.read(tmp_path / "lora.pt", alpha=12)


def test_a_merged_checkpoint_of_loralib_is_refused(tmp_path: Path) -> None:
    def make() -> nn.Module:
        model = tiny_model("bert")
        for name, module in list(model.named_modules()):
            if name.endswith("self.query"):
                new = loralib.Linear(32, 32, r=3, lora_alpha=6)
                new.load_state_dict(module.state_dict(), strict=False)
                model.set_submodule(name, new)
        randomise(model)
        return model

    config = LoRAConfig(r=3, alpha=6, weight_types=("q",))
    apart, merged = make().train(), make().train().eval()
    torch.save(apart.state_dict(), tmp_path / "apart.pt")  # everything, W0 too
    ours = tiny_model("bert")
    load_loralib(ours, tmp_path / "apart.pt", config)
    assert_equal(logits(ours), logits(merged))
    torch.save(merged.state_dict(), tmp_path / "merged.pt")
    with pytest.raises(InputError, match="query.weight is not the pretrained one: its adapter may be merged"):
        load_loralib(tiny_model("bert"), tmp_path / "merged.pt", config)


def loralib_state(change: Callable[[dict[Any, Any]], Any], path: Path) -> Path:
    A, B = torch.ones(3, 32), torch.ones(32, 3)
    torch.save(change({"bert.encoder.layer.0.attention.self.query.lora_A": A,
                       "bert.encoder.layer.0.attention.self.query.lora_B": B}), path)  # fmt: skip
    return path


A_NAME = "bert.encoder.layer.0.attention.self.query.lora_A"
ONE = LoRAConfig(r=3, alpha=6, weight_types=("q",), layers=(0,))
PICKLES: dict[str, tuple[Callable[[dict[Any, Any]], Any], str]] = {
    "integer keys": (lambda state: state | {7: torch.ones(2)}, "holds other things than names and tensors"),
    "meta": (lambda state: state | {A_NAME: torch.ones(3, 32, device="meta")}, "lora_A has no data"),
    "sparse": (lambda state: state | {A_NAME: torch.ones(3, 32).to_sparse()}, "lora_A is sparse, nested or quantised"),
    "nested": (
        lambda state: state | {A_NAME: torch.nested.nested_tensor([torch.ones(2)])},
        "is sparse, nested|cannot be read",
    ),
    "complex": (lambda state: state | {A_NAME: torch.ones(3, 32, dtype=torch.complex64)}, "stored as complex64"),
    "64 GB": (lambda state: state | {A_NAME: torch.ones(1).expand(4, 1 << 32)}, "asks for 68,719,476,736 bytes"),
    "two sets": (lambda state: {"model": state, "ema": state}, r"several sets of weights \(model, ema\)"),
    "numbers": (lambda state: state | {"step": 3}, "holds other things than names and tensors"),
    "a list": (lambda state: [state], "holds other things than names and tensors"),
    "NaN": (lambda state: state | {A_NAME: torch.full((3, 32), torch.nan)}, "lora_A holds NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_pickled_files_that_are_no_adapters(case: str, tmp_path: Path) -> None:
    change, match = PICKLES[case]
    path = loralib_state(change, tmp_path / "lora.pt")
    model = tiny_model("bert")
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        load_loralib(model, path, ONE)
    assert "\n" not in str(raised.value)
    assert_identical(model, before)


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("module",), ("model", "state_dict")])
def test_parameters_and_state_dicts_under_a_key(keys: tuple[str, ...], tmp_path: Path) -> None:
    def change(own: dict[Any, Any]) -> Any:
        found: Any = {name: nn.Parameter(value) for name, value in own.items()}
        for key in keys:
            found = {key: found, "epoch": 3}
        return found

    path = loralib_state(change, tmp_path / "lora.pt")
    model = tiny_model("bert")
    load_loralib(model, path, ONE)
    assert (logits(model) - logits(tiny_model("bert"))).abs().max() > 1e-3
    found = updates.read(path, alpha=6)
    assert [update.norm() for update in found.values()] == [pytest.approx(6 / 3 * 3 * 32)]
    assert "epoch too, which is not read" in found.account().notes[-1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rank_pattern": {r"([\w.]+)+!": 4}}, "rank_pattern: matching its regular expressions does not end"),
        ({"target_modules": r"((a|m|l|\.|\w)*)*!"}, "target_modules: matching its regular expressions does not end"),
        ({"rank_pattern": {"(" * 5000: 4}}, "adapter_config.json is damaged: rank_pattern"),
        ({"rank_pattern": {"a" * 20_000: 4}}, "regular expression of 20,0.. characters is too long"),
        ({"rank_pattern": {"q_proj": "4"}}, "has rank 4 in adapter_model.safetensors, but r = '4'"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "lora_alpha = nan"),
        ({"lora_alpha": True}, "lora_alpha = True"),
        ({"lora_alpha": 1e308}, r"lora_alpha = 1e\+308"),
        ({"r": 10**400, "rank_pattern": {}}, "but r = 10000"),
        ({"use_rslora": "yes"}, "use_rslora = 'yes' is not true or false"),
        ({"target_modules": {"q_proj": 1}}, "target_modules = .* is not a list of names"),
        ({"modules_to_save": "lm_head"}, "modules_to_save = 'lm_head' is not a list of names"),
        ({"layers_to_transform": ["0"]}, "layers_to_transform = .* is not a list of layers"),
        ({"bias": 3}, "bias = '3' is not none, all or lora_only"),
    ],
)
def test_configs_that_are_none(
    change: dict[str, Any], match: str, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 3)
    edit(adapter, **change)
    assert_refused(adapter, match)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '{"r": ' + "9" * 5000 + "}"])
def test_json_that_is_nested_or_long_without_end(text: str, adapter: Path, tmp_path: Path) -> None:
    (adapter / CONFIG).write_text(text)
    assert_refused(adapter, "adapter_config.json is damaged")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / io.CONFIG).write_text(text)
    with pytest.raises(InputError, match=r"lora_config.json is damaged"):
        io.read(tmp_path / "own")


def test_a_file_is_opened_once_for_all_its_tensors(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(adapter, modules_to_save=["extra"])
    more = {f"base_model.model.extra.{number}": torch.ones(1) for number in range(2000)}
    save_file(load_file(adapter / WEIGHTS) | more, adapter / WEIGHTS)
    file = open_tensors(adapter / WEIGHTS)
    opened = []
    original = type(file)._read
    monkeypatch.setattr(type(file), "_read", lambda self, names: opened.append(len(names)) or original(self, names))
    found = read_peft(adapter)
    assert len(found.parameters()) == 2000 and len(found.all_tensors()) == 4
    assert max(opened) == 2000 and len(opened) <= 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", "4"), ("r", 0), ("r", True), ("scaling", "x"), ("scaling", float("nan")), ("scaling", None),
        ("shape", [32]), ("shape", 3), ("shape", ["a", "b"]), ("module", 3), ("weight_type", None), ("layer", "0"),
        ("w0_norm", "x"), ("w0_norm", float("inf")), ("dora", 1), ("unknown", 1), ("weight_type", "a.b"),
    ],
)  # fmt: skip
def test_types_in_lora_config_are_checked(field: str, value: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    inject(model, LoRAConfig(r=4, weight_types=("q",)))
    freeze(model)
    io.save(model, tmp_path)
    content = json.loads((tmp_path / io.CONFIG).read_text())
    content["targets"][1][field] = value
    (tmp_path / io.CONFIG).write_text(json.dumps(content))
    fresh = tiny_model("llama")
    before = state(fresh)
    with pytest.raises(InputError, match="lora_config.json is damaged"):
        io.load(fresh, tmp_path)
    assert_identical(fresh, before)


def test_whatever_goes_wrong_the_model_is_as_it_was(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora import fill

    edit(adapter, modules_to_save=["norm"])
    norm = {"base_model.model.model.norm.weight": torch.ones(32)}
    save_file(load_file(adapter / WEIGHTS) | norm, adapter / WEIGHTS)
    model = tiny_model("llama")
    before = state(model)

    def broken(*_: object) -> None:
        raise TypeError("from the middle of it")

    original = fill.adapters_of
    monkeypatch.setattr(fill, "adapters_of", broken)
    with pytest.raises(TypeError, match="from the middle"):
        load_peft(model, adapter)
    assert_identical(model, before)
    monkeypatch.setattr(fill, "adapters_of", original)
    load_peft(model, adapter)
    assert not torch.equal(model.model.norm.weight, before["model.norm.weight"])


def test_counters_and_buffers_of_a_saved_module(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"body": nn.Linear(6, 6), "head": nn.BatchNorm1d(6)})

    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=2, target_modules=["body"], modules_to_save=["head"]))
    randomise(theirs)
    x = torch.randn(9, 6)
    theirs.base_model.model["head"](x * 3 + 1)  # running statistics move
    theirs.save_pretrained(tmp_path)
    theirs.eval()
    ours = make().eval()
    load_peft(ours, tmp_path)
    run = theirs.base_model.model
    assert_equal(ours["head"](ours["body"](x)), run["head"](run["body"](x)))
    assert ours["head"].num_batches_tracked == 1


def test_a_rank_above_the_layers_size(tmp_path: Path) -> None:
    """r = 5 on a classifier of two classes: peft takes it."""
    config = peft.LoraConfig(r=5, lora_alpha=12, target_modules=["query", "classifier"], use_rslora=True)
    theirs = peft.get_peft_model(tiny_model("bert"), config)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = tiny_model("bert")
    load_peft(ours, tmp_path)
    assert_equal(logits(ours), logits(peft.PeftModel.from_pretrained(tiny_model("bert"), tmp_path)))
