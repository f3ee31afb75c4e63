"""peft opens what save_peft writes, and load_peft opens what peft writes: same outputs both ways, heads included."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tiny_models import (
    ARCHITECTURES,
    INPUTS,
    VOCABULARY,
    assert_equal,
    assert_identical,
    logits,
    randomise,
    state,
    tiny_model,
)
from torch import Tensor, nn

from lora import targets
from lora.config import InputError, LoRAConfig
from lora.formats.peft_out import save_peft
from lora.interop import load_peft
from lora.layer import Part
from lora.model import attach, base_parameters, freeze, inject, lora_layers, merge
from lora.targets import Place

HEADS = {
    "bert": ["classifier"],
    "roberta": ["classifier.dense", "classifier.out_proj"],
    "deberta-v2": ["classifier", "pooler"],
}


def train_heads(model: nn.Module, heads: list[str]) -> None:
    """Freeze all but adapters and heads, and move the heads as training would."""
    freeze(model, heads)
    with torch.no_grad():
        for name, parameter in base_parameters(model).items():
            if any(name.startswith(head) for head in heads):
                parameter += 0.1 * torch.randn_like(parameter)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_export_is_opened_by_peft(kind: str, variant: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    types = targets.weight_types(tiny_model(kind))
    r = {name: 2 + index % 3 for index, name in enumerate(types)}
    alpha = {name: 3.0 + index for index, name in enumerate(types)}
    inject(model, LoRAConfig(r=r, alpha=alpha, weight_types=types, scaling="rslora", variant=variant))
    randomise(model)
    train_heads(model, HEADS.get(kind, []))
    out = logits(model)
    save_peft(model, tmp_path)
    assert_equal(logits(peft.PeftModel.from_pretrained(tiny_model(kind), tmp_path)), out)

    back = tiny_model(kind)
    load_peft(back, tmp_path)
    assert_equal(logits(back), out)
    merge(model)
    save_peft(model, tmp_path / "merged")  # a merged adapter is the same adapter
    assert_equal(logits(peft.PeftModel.from_pretrained(tiny_model(kind), tmp_path / "merged")), out)


def test_export_of_embedding_and_pattern(tmp_path: Path) -> None:
    """Modules named by pattern, and one layer among more than nine: `layer.1` must not match `layer.11`."""
    config = LoRAConfig(r=4, weight_types=("q",), modules=("*.word_embeddings", "*.position_embeddings"))
    model = tiny_model("bert", num_hidden_layers=12)
    inject(model, config)
    randomise(model)
    freeze(model)
    save_peft(model, tmp_path)
    opened = peft.PeftModel.from_pretrained(tiny_model("bert", num_hidden_layers=12), tmp_path)
    assert_equal(logits(opened), logits(model))

    one = tiny_model("bert", num_hidden_layers=12)
    inject(one, LoRAConfig(r=4, weight_types=("q",), layers=(1,)))
    randomise(one)
    freeze(one)
    save_peft(one, tmp_path)
    opened = peft.PeftModel.from_pretrained(tiny_model("bert", num_hidden_layers=12), tmp_path)
    assert_equal(logits(opened), logits(one))


PEFT_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("bert", {"target_modules": ["query", "value"]}),
    "rslora": ("bert", {"target_modules": ["query", "value"], "use_rslora": True, "lora_alpha": 5}),
    "patterns": (
        "bert",
        {
            "target_modules": ["query", "key", "intermediate.dense"],
            "rank_pattern": {
                "layer.1.attention.self.query": 2,
                "key": 5,
                "^bert.encoder.layer.0.intermediate.dense": 7,
            },
            "alpha_pattern": {"layer.0.attention.self.query": 30, "layer.[01].attention.self.key": 3},
        },
    ),
    "rslora_patterns": (
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "rank_pattern": {"q_proj": 3}}
        | {"alpha_pattern": {"v_proj": 20}},
    ),
    "sequence_classification": ("bert", {"target_modules": ["query"], "task_type": "SEQ_CLS"}),
    "modules_to_save": ("roberta", {"target_modules": ["query"], "modules_to_save": ["classifier", "LayerNorm"]}),
    "all_linear": ("deberta-v2", {"target_modules": "all-linear", "task_type": "SEQ_CLS"}),
    "regular_expression": ("opt", {"target_modules": r".*layers\.1\..*(q_proj|fc1)"}),
    "layers": ("mistral", {"target_modules": ["o_proj"], "layers_to_transform": [1]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "fused": ("gpt_neox", {"target_modules": ["query_key_value", "dense"]}),
    "encoder_decoder": ("t5", {"target_modules": ["q", "v", "wi_0"]}),
    "embedding": ("bert", {"target_modules": ["word_embeddings", "query"]}),
    "bias_all": ("bert", {"target_modules": ["query", "value"], "bias": "all"}),
    "bias_lora_only": ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}),
    "dora": ("bert", {"target_modules": ["query", "intermediate.dense"], "use_dora": True}),
    "dora_conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "use_dora": True, "fan_in_fan_out": True}),
    "gaussian": ("gemma", {"target_modules": ["gate_proj", "down_proj"], "init_lora_weights": "gaussian"}),
}


@pytest.mark.parametrize("case", PEFT_CONFIGS)
def test_import_from_peft(case: str, tmp_path: Path) -> None:
    kind, options = PEFT_CONFIGS[case]
    model = peft.get_peft_model(tiny_model(kind), peft.LoraConfig(**({"r": 4, "lora_alpha": 12} | options))).eval()
    randomise(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # heads and biases that are trained
                parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    ours = tiny_model(kind)
    load_peft(ours, tmp_path)
    assert list(lora_layers(ours))
    assert_equal(logits(ours), logits(model))


def test_import_in_any_order(tmp_path: Path) -> None:
    """Files sort layer 10 before layer 2; with modules of several shapes the order must not matter."""
    config = peft.LoraConfig(r=2, target_modules=r".*(layer\.10\..*intermediate\.dense|layer\.\d\..*query)")
    model = peft.get_peft_model(tiny_model("bert", num_hidden_layers=11), config).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    ours = tiny_model("bert", num_hidden_layers=11)
    load_peft(ours, tmp_path)
    assert_equal(logits(ours), logits(model))


def test_import_names_the_weight_types(tmp_path: Path) -> None:
    model = peft.get_peft_model(
        tiny_model("llama"), peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj", "lm_head"])
    )
    model.save_pretrained(tmp_path)
    ours = tiny_model("llama")
    load_peft(ours, tmp_path)
    assert {part.name for _, layer in lora_layers(ours) for part in layer.parts} == {"q", "up", targets.WHOLE}


def test_custom_module(tmp_path: Path) -> None:
    """No transformers model; one adapted module's name is the end of another's, and a head is trained beside them."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        more = nn.ModuleDict({"body": nn.Linear(8, 8)})
        return nn.ModuleDict(
            {"body": nn.Embedding(VOCABULARY, 8, padding_idx=3), "more": more, "head": nn.Linear(8, 2)}
        )

    def run(model: Any) -> Tensor:
        return model["head"](model["more"]["body"](model["body"](INPUTS)))

    ours = make()
    parts = {"body": Part(targets.WHOLE, 3, 0.5), "more.body": Part(targets.WHOLE, 2, 4.0)}
    attach(ours, [Place(name, None, part) for name, part in parts.items()])
    randomise(ours)
    train_heads(ours, ["head"])
    save_peft(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path).base_model.model
    torch.testing.assert_close(run(theirs), run(ours))


@pytest.fixture
def peft_folder(tmp_path: Path) -> Path:
    model = peft.get_peft_model(tiny_model("bert"), peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS"))
    randomise(model)
    model.save_pretrained(tmp_path)
    return tmp_path


def edit(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_refused(model: nn.Module, folder: Path, match: str) -> None:
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        load_peft(model, folder)
    assert "\n" not in str(raised.value)
    assert_identical(model, before)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"use_dora": True}, "query has no lora_magnitude_vector, which DoRA needs"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 5}, "has rank 4 in adapter_model.safetensors, but r = 5"),
        ({"r": None}, "has rank 4 in adapter_model.safetensors, but r = None"),
        ({"lora_alpha": "x"}, "lora_alpha = 'x'"),
    ],
)
def test_other_equations_and_bad_configs_are_refused(peft_folder: Path, fields: dict[str, object], match: str) -> None:
    edit(peft_folder, **fields)
    assert_refused(tiny_model("bert"), peft_folder, match)


def test_dora_without_saying_so_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["query"], use_dora=True)
    peft.get_peft_model(tiny_model("bert"), config).save_pretrained(tmp_path)
    edit(tmp_path, use_dora=False)
    assert_refused(
        tiny_model("bert"), tmp_path, r"query.lora_magnitude_vector is stored beside A and B .* \(use_dora is not set\)"
    )


def test_dora_of_an_embedding_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["word_embeddings"], use_dora=True)
    peft.get_peft_model(tiny_model("bert"), config).save_pretrained(tmp_path)
    assert_refused(tiny_model("bert"), tmp_path, "does not fit this model: DoRA is for Linear and Conv1D")


def test_half_dora_cannot_be_exported(tmp_path: Path) -> None:
    model = tiny_model("bert")
    names = ("bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.self.query")
    parts = Part("q", 2, 1.0, variant="dora"), Part("q", 2, 1.0)
    attach(model, [Place(name, None, part) for name, part in zip(names, parts, strict=True)])
    with pytest.raises(InputError, match="some adapters are DoRA and others LoRA"):
        save_peft(model, tmp_path)


def test_another_model_is_refused(peft_folder: Path) -> None:
    assert_refused(tiny_model("bert", hidden_size=16), peft_folder, "for another model: it trained classifier.weight")
    assert_refused(tiny_model("bert", num_hidden_layers=1), peft_folder, "no module bert.encoder.layer.1")
    assert_refused(tiny_model("llama"), peft_folder, "for another model")


def test_another_width_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["query"])
    peft.get_peft_model(tiny_model("bert"), config).save_pretrained(tmp_path)
    assert_refused(tiny_model("bert", hidden_size=16), tmp_path, r"trained on a W0 of shape \(32, 32\)")
    assert_refused(tiny_model("bert", hidden_size=4, num_attention_heads=2), tmp_path, "for another model")
    narrow = tiny_model("bert", hidden_size=2, num_attention_heads=1)
    assert_refused(narrow, tmp_path, "does not fit this model: rank r = 4")


def test_adapted_model_is_refused(peft_folder: Path) -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=1))
    assert_refused(model, peft_folder, "adapters already: eject them first")


def test_damaged_folders_are_refused(peft_folder: Path) -> None:
    weights, config = peft_folder / "adapter_model.safetensors", peft_folder / "adapter_config.json"
    whole, text = weights.read_bytes(), config.read_text()
    model = tiny_model("bert")
    weights.write_bytes(whole[: len(whole) // 2])
    assert_refused(model, peft_folder, "adapter_model.safetensors is damaged")
    weights.unlink()
    assert_refused(model, peft_folder, "adapter_model.safetensors does not exist")
    weights.write_bytes(whole)
    for broken in (text[: len(text) // 2], "[]", ""):
        config.write_text(broken)
        assert_refused(model, peft_folder, "adapter_config.json is damaged")
    config.unlink()
    assert_refused(model, peft_folder, "adapter_config.json does not exist")


def test_export_refuses_what_peft_cannot_hold(tmp_path: Path) -> None:
    model = tiny_model("bert")
    with pytest.raises(InputError, match="no LoRA adapters to save"):
        save_peft(model, tmp_path)
    inject(model, LoRAConfig(r=2))
    freeze(model, ["bert.encoder.layer.0.attention.self.query.bias"])
    with pytest.raises(InputError, match="only whole modules"):
        save_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())
