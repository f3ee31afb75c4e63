"""What a user can get wrong is told in one line, and the model stays as it was."""

import pytest
from tiny_models import (
    assert_identical,
    state,
    tiny_model,
)
from torch import nn

from lora.config import InputError, LoRAConfig
from lora.layer import Part
from lora.model import attach, inject, lora_layers, merge
from lora.targets import Place

BAD_CONFIGS = [
    ({"r": 0}, "rank r = 0 for q"),
    ({"r": -1}, "rank r = -1"),
    ({"r": True}, "rank r = True"),
    ({"r": 2.0}, "rank r = 2.0"),
    ({"r": "8"}, "rank r = '8'"),
    ({"r": {"q": 4, "v": 0}}, "rank r = 0 for v"),
    ({"r": {"q": 4}}, r"r is given for \['q'\] but the targets are \['q', 'v'\]"),
    ({"alpha": {"q": 4, "k": 1}}, "alpha is given for"),
    ({"alpha": 0}, "alpha = 0"),
    ({"alpha": -2.0}, "alpha = -2.0"),
    ({"alpha": float("nan")}, "alpha = nan"),
    ({"alpha": float("inf")}, "alpha = inf"),
    ({"alpha": True}, "alpha = True"),
    ({"alpha": "16"}, "alpha = '16'"),
    ({"dropout": 1.0}, "dropout = 1.0"),
    ({"dropout": -0.1}, "dropout = -0.1"),
    ({"dropout": float("nan")}, "dropout = nan"),
    ({"dropout": "a"}, "dropout = 'a'"),
    ({"weight_types": ()}, "LoRA has no target"),
    ({"weight_types": ("q", "w")}, "unknown weight type 'w': choose from q, k, v, o, up, gate, down"),
    ({"weight_types": "q+v"}, r"weight_types = 'q\+v': it must be a list"),
    ({"weight_types": None}, "weight_types"),
    ({"modules": "lm_head"}, "modules = 'lm_head': it must be a list"),
    ({"weight_types": ("q", "q")}, "named twice in q, q"),
    ({"layers": 3}, "layers = 3: it must be a list"),
    ({"layers": ("a",)}, "layer 'a'"),
    ({"layers": (True,)}, "layer True"),
    ({"layers": (1.0,)}, "layer 1.0"),
    ({"init": "xavier"}, "unknown init 'xavier': choose from both_gaussian, both_zero, gaussian, gaussian_b, kaiming"),
    ({"init": "dora"}, "unknown init 'dora': choose from"),
    ({"init": None}, "unknown init None: choose from"),
    ({"init": "_draws"}, "unknown init '_draws': choose from"),
    ({"scaling": "none"}, "unknown scaling 'none': choose from standard, rslora"),
    ({"variant": "dara"}, "unknown variant 'dara': choose from dora, lora"),
    ({"variant": "pissa"}, "unknown variant 'pissa': choose from dora, lora"),
    ({"variant": ["dora"]}, r"unknown variant \['dora'\]"),
    ({"variant": "dora", "init": "pissa"}, "init pissa is not for DoRA"),
    ({"variant": "dora", "init": "lora_ga"}, "init lora_ga is not for DoRA"),
    ({"dropout": 0.1, "init": "pissa"}, "init pissa needs dropout = 0, not 0.1"),
    ({"dropout": 0.1, "init": "lora_ga"}, "init lora_ga needs dropout = 0"),
]


@pytest.mark.parametrize(("fields", "match"), BAD_CONFIGS)
def test_bad_configs(fields: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match) as raised:
        LoRAConfig(**fields)
    assert "\n" not in str(raised.value)


BAD_TARGETS = [
    ("bert", {"r": 33}, r"rank r = 33 for q: it must be between 1 and min\(d, k\) = 32"),
    ("llama", {"r": 17, "weight_types": ("v",)}, r"min\(d, k\) = 16"),  # grouped: fewer value heads
    ("phi3", {"r": 17, "weight_types": ("k",)}, r"min\(d, k\) = 16"),
    ("bert", {"weight_types": ("gate",)}, "a bert model has no weight type 'gate': it has q, k, v, o, up, down"),
    ("bert", {"weight_types": (), "modules": ("*.lm_head",)}, r"'\*.lm_head' matches no module that LoRA can adapt"),
    ("bert", {"modules": ("*.LayerNorm",)}, r"'\*.LayerNorm' matches no module"),
    ("bert", {"layers": (0, 2)}, r"layers \[2\] do not exist: the model has layers 0 to 1"),
    ("bert", {"layers": (-1,)}, r"layers \[-1\] do not exist"),
    ("bert", {"layers": ()}, "'q' matches no module"),
    ("bert", {"modules": ("*.query",)}, "query is chosen twice"),
    ("gpt2", {"modules": ("*.c_attn",)}, "c_attn is chosen twice"),
    ("bert", {"weight_types": (), "modules": ("classifier", "class*")}, "classifier is chosen twice"),
]


@pytest.mark.parametrize(("kind", "fields", "match"), BAD_TARGETS)
def test_bad_targets(kind: str, fields: dict[str, object], match: str) -> None:
    model = tiny_model(kind)
    before = state(model)
    with pytest.raises(InputError, match=match) as raised:
        inject(model, LoRAConfig(**fields))
    assert "\n" not in str(raised.value)
    assert_identical(model, before)


def test_type_that_this_model_has_in_no_layer() -> None:
    with pytest.raises(InputError, match="a t5 model has no weight type 'gate': it has q, k, v, o, up, down$"):
        inject(tiny_model("t5", feed_forward_proj="relu"), LoRAConfig(r=2, weight_types=("gate",)))


def test_weight_types_of_an_unknown_model() -> None:
    with pytest.raises(InputError, match="not known for a Sequential model: name modules by pattern"):
        inject(nn.Sequential(nn.Linear(4, 4)), LoRAConfig(r=1))
    with pytest.raises(InputError, match="the model has, for example, none"):
        inject(nn.Sequential(nn.ReLU()), LoRAConfig(r=1, weight_types=(), modules=("*",)))


def test_injecting_twice() -> None:
    model = tiny_model("bert")
    inject(model, LoRAConfig(r=2))
    before = state(model)
    for _ in range(2):
        with pytest.raises(InputError, match="the model has LoRA adapters already: eject them first"):
            inject(model, LoRAConfig(r=2, weight_types=("o",)))
        assert_identical(model, before)
        merge(model)
        before = state(model)


def test_attach_refuses_what_it_cannot_wrap() -> None:
    model = tiny_model("bert")
    for module, match in (("bert.pooler", "cannot adapt a BertPooler"), ("bert.nothing", "the model has no module")):
        with pytest.raises(InputError, match=match):
            attach(model, [Place("classifier", None, Part("all", 1, 1.0)), Place(module, None, Part("all", 1, 1.0))])
        assert not list(lora_layers(model))
