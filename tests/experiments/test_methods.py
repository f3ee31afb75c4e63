"""Every method on every architecture: what is trained, how much of it, and that a stored run comes back."""

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from networks import (
    BATCH,
    BLOCK,
    INNER,
    LAYERS,
    LORA,
    METHODS,
    O_DOWN,
    POSITIONS,
    PROMPT,
    Q_V,
    ROWS,
    VOCABULARY,
    D,
    adapted,
    every_pair,
    network,
    padded,
    train,
    trained_count,
)
from torch import nn

from experiments import methods
from experiments.models import head_modules
from lora import io
from lora.config import InputError
from lora.model import base_parameters, trainable_parameters


# Names of what is trained beside the heads, from the names of the parameters (before the method is applied).
def _blocks(kind: str, *ends: str, first: int = 0) -> set[str]:
    return {
        ".".join((BLOCK[kind].format(layer), *filter(None, [end]))) for layer in range(first, LAYERS) for end in ends
    }


def _bottlenecks(places: set[str], *modules: str) -> set[str]:
    return {f"{place}.adapter.{module}.{leaf}" for place in places for module in modules for leaf in ("weight", "bias")}


def _after_norm(kind: str) -> str:
    return "" if kind in ("gpt2", "llama") else "output.LayerNorm"


def _lora(kind: str) -> set[str]:
    types = {"attn.c_attn": ("q", "v")}
    ends = {"attention.self.query": "q", "self_attn.q_proj": "q", "attention.self.query_proj": "q"}
    return {
        f"{place}.lora_{side}.{weight_type}"
        for end in Q_V[kind]
        for place in _blocks(kind, end)
        for weight_type in types.get(end, (ends.get(end, "v"),))
        for side in "AB"
    }


def _prompt(kind: str) -> set[str]:
    return {f"{BLOCK[kind].split('.')[0]}.prompt.vectors"}


EXPECTED: dict[str, Callable[[str, set[str]], set[str]]] = {
    "full": lambda kind, names: names,
    "head_only": lambda kind, names: set(),
    "bitfit": lambda kind, names: {name for name in names if name.endswith(".bias")},
    "ft_top2": lambda kind, names: {
        name for name in names if name.startswith((BLOCK[kind].format(1) + ".", BLOCK[kind].format(2) + "."))
    },
    "adapter_h": lambda kind, names: _bottlenecks(_blocks(kind, *O_DOWN[kind]), "down", "up"),
    "adapter_l": lambda kind, names: _bottlenecks(_blocks(kind, ""), "norm", "down", "up"),
    "adapter_p": lambda kind, names: _bottlenecks(_blocks(kind, _after_norm(kind)), "down", "up"),
    "adapter_d": lambda kind, names: _bottlenecks(_blocks(kind, _after_norm(kind), first=2), "down", "up"),
    "prefix_embed": lambda kind, names: _prompt(kind),
    "prefix_layer": lambda kind, names: _prompt(kind),
    "lora": lambda kind, names: _lora(kind),
}


@every_pair
def test_just_what_the_method_trains_is_trained(kind: str, name: str) -> None:
    model = network(kind)
    names = {key for key, _ in model.named_parameters()}
    body = {key for key in names if key.startswith(f"{model.base_model_prefix}.")}
    heads = names - body
    methods.apply(model, METHODS[name], head_modules(model))
    expected = set().union(heads, *(EXPECTED[part](kind, body) for part in name.split("+")))
    found = {re.sub(r"\.base\.(weight|bias)$", r".\1", key) for key in trainable_parameters(model)}
    assert found == expected
    model(**BATCH).loss.backward()
    assert [key for key, parameter in trainable_parameters(model).items() if parameter.grad is None] == []


@every_pair
def test_it_learns_the_frozen_stays_and_a_stored_run_comes_back(kind: str, name: str, tmp_path: Path) -> None:
    method, model = METHODS[name], adapted(kind, METHODS[name])
    frozen = {key: p.clone() for key, p in base_parameters(model).items() if not p.requires_grad}
    trained = {key: p.detach().clone() for key, p in trainable_parameters(model).items()}
    losses = train(model, method, BATCH)
    assert losses[-1] < losses[0]
    own = base_parameters(model)
    assert all(torch.equal(own[key], before) for key, before in frozen.items())
    same = [key for key, p in trainable_parameters(model).items() if torch.equal(p, trained[key])]
    # A bias of the keys moves every score of a query alike: softmax does not see it, its gradient is rounding.
    assert [key for key in same if not re.search(r"(key|key_proj|k_proj)\.bias$", key)] == []

    io.save(model, tmp_path)
    fresh = network(kind)
    for head in head_modules(fresh):  # a head is drawn anew whenever a pretrained model is loaded
        for parameter in fresh.get_submodule(head).parameters():
            nn.init.normal_(parameter)
    methods.load(fresh, method, head_modules(fresh), tmp_path)
    assert torch.equal(fresh(**BATCH).logits, model(**BATCH).logits)
    assert set(trainable_parameters(fresh)) == set(trainable_parameters(model))


@pytest.mark.parametrize("name", ["adapter_h", "adapter_l", "adapter_p", "prefix_embed", "prefix_layer", "lora"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_language_models_learn_too(kind: str, name: str, tmp_path: Path) -> None:
    family = {"gpt2": "LMHeadModel", "llama": "ForCausalLM"}[kind]
    model = network(kind, family)
    methods.apply(model, METHODS[name], [])
    text = padded(ROWS)
    batch = {**text, "labels": text["input_ids"].masked_fill(text["attention_mask"] == 0, -100)}
    losses = train(model, METHODS[name], batch)
    assert losses[-1] < losses[0]
    io.save(model, tmp_path)
    fresh = network(kind, family)
    methods.load(fresh, METHODS[name], [], tmp_path)
    logits = model(**batch).logits
    assert logits.shape == (3, 6, VOCABULARY)
    assert torch.equal(fresh(**batch).logits, logits)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "bitfitt"}, "unknown method 'bitfitt'"),
        ({"name": "lora+nothing", **PROMPT}, "unknown method 'nothing'"),
        ({"name": "_prompt"}, "unknown method '_prompt'"),
        ({"name": "head_only", "r": 8}, "method head_only has no field 'r'"),
        ({"name": "full", "r": 8}, "method.r is of optimizer galore, this one is AdamW"),
        ({"name": "adapter_p", "bottleneck": 4, "drop": 1}, "method adapter_p has no field 'drop'"),
        ({"name": "prefix_embed", **PROMPT, "l_q": 1}, "has no field 'l_q'"),
        ({"name": "adapter_h", "bottleneck": 0}, "method.bottleneck = 0: it must be a whole number of at least 1"),
        ({"name": "adapter_l", "bottleneck": 2.5}, "method.bottleneck = 2.5"),
        ({"name": "adapter_l", "bottleneck": True}, "method.bottleneck = True"),
        ({"name": "adapter_p"}, "method.bottleneck is missing"),
        ({"name": "adapter_p", "bottleneck": D + 1}, f"method.bottleneck = {D + 1} is no bottleneck"),
        ({"name": "adapter_d", "bottleneck": 4}, "method.drop is missing"),
        ({"name": "adapter_d", "bottleneck": 4, "drop": -1}, "method.drop = -1"),
        ({"name": "adapter_d", "bottleneck": 4, "drop": LAYERS}, f"method.drop = {LAYERS} leaves no adapter"),
        ({"name": "ft_top2", "layers": 0}, "method.layers = 0"),
        ({"name": "ft_top2", "layers": LAYERS + 1}, f"method.layers = {LAYERS + 1}: the model has {LAYERS} layers"),
        ({"name": "prefix_embed", "l_p": 0, "l_i": 0}, "method.l_p and method.l_i are both 0"),
        ({"name": "prefix_layer", "l_p": 0, "l_i": 0}, "method.l_p and method.l_i are both 0"),
        ({"name": "prefix_layer", "l_p": 2, "l_i": -1}, "method.l_i = -1"),
        ({"name": "prefix_embed", "l_p": 2}, "method.l_i is missing"),
        ({"name": "prefix_layer", "l_p": POSITIONS, "l_i": 9}, f"the model's {POSITIONS} positions"),
    ],
)
def test_bad_settings_are_one_clear_line(method: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        adapted("bert", method)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_methods_that_a_model_cannot_have() -> None:
    with pytest.raises(InputError, match="BitFit trains biases, but a llama model has none"):
        adapted("llama", {"name": "bitfit"})
    headless = network("bert", "Model")
    with pytest.raises(InputError, match="nothing would be trained"):
        methods.apply(headless, {"name": "head_only"}, [])


@pytest.mark.parametrize(
    "name", ["bitfit", "ft_top2", "adapter_h", "adapter_l", "adapter_p", "adapter_d", "prefix_embed", "prefix_layer"]
)
def test_an_encoder_decoder_is_refused(name: str) -> None:
    sizes = {"d_model": D, "d_kv": 8, "d_ff": INNER, "num_layers": LAYERS, "num_heads": 2, "eos_token_id": 3}
    config = transformers.T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, pad_token_id=0, **sizes)
    model = transformers.T5ForSequenceClassification(config)
    with pytest.raises(InputError, match="a t5 model has an encoder and a decoder: this method knows one stack"):
        methods.apply(model, METHODS[name], head_modules(model))


# Parameters beside the head, as the paper counts them, with its names (section 5.1).
def _adapter(d: int, L_a: int, L_ln: int, r: int) -> int:
    return L_a * (2 * d * r + r + d) + 2 * L_ln * d


COUNTS: list[tuple[dict[str, Any], Callable[[int, int], int]]] = [
    ({"name": "adapter_h", "bottleneck": 4}, lambda d, L: _adapter(d, 2 * L, 0, 4)),
    ({"name": "adapter_l", "bottleneck": 4}, lambda d, L: _adapter(d, L, L, 4)),
    ({"name": "adapter_p", "bottleneck": 4}, lambda d, L: _adapter(d, L, 0, 4)),
    ({"name": "adapter_d", "bottleneck": 4, "drop": 1}, lambda d, L: _adapter(d, L - 1, 0, 4)),
    ({"name": "prefix_embed", "l_p": 4, "l_i": 3}, lambda d, L: d * 7),
    ({"name": "prefix_layer", "l_p": 4, "l_i": 3}, lambda d, L: L * d * 7),
    ({**LORA, "r": 4}, lambda d, L: 2 * (2 * L) * d * 4),
    ({**LORA, "name": "lora+prefix_embed", "r": 4, **PROMPT}, lambda d, L: 2 * (2 * L) * d * 4 + d * 5),
    ({**LORA, "name": "lora+prefix_layer", "r": 4, **PROMPT}, lambda d, L: 2 * (2 * L) * d * 4 + L * d * 5),
]


@pytest.mark.parametrize(("method", "formula"), COUNTS, ids=[method["name"] for method, _ in COUNTS])
@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "gpt2"])  # where q, k and v are d by d
def test_counts_are_the_formulas(kind: str, method: dict[str, Any], formula: Callable[[int, int], int]) -> None:
    heads = trained_count(adapted(kind, {"name": "head_only"}))
    assert trained_count(adapted(kind, method)) - heads == formula(D, LAYERS)


GPT3_D, GPT3_L = 12288, 96
TABLE_15 = Path(__file__).parents[2] / "analysis" / "paper" / "table15_tradeoff.csv"


def gpt3(layers: int = GPT3_L) -> nn.Module:
    """GPT-3 175B's shapes in GPT-2's architecture, on the meta device, which holds no numbers."""
    with torch.device("meta"):
        sizes = {"n_embd": GPT3_D, "n_layer": layers, "n_head": 96, "n_positions": 2048}
        return transformers.GPT2Model(transformers.GPT2Config(**sizes))


def gpt3_count(method: Mapping[str, Any]) -> int:
    """What is trained of its 96 equal layers: of one, and 95 times what a second adds (LoRA draws its A in memory)."""
    counts = []
    for layers in (1, 2):
        model = gpt3(layers)
        methods.apply(model, method, [])
        counts.append(trained_count(model))
    return counts[0] + (GPT3_L - 1) * (counts[1] - counts[0])


def _table_15() -> list[Any]:
    """(method, millions) of the table's rows; `rq=rv=8,lp=8,li=4` are the settings of its combinations."""
    rows = []
    for row in csv.DictReader(TABLE_15.read_text().splitlines()):
        name, settings = row["method"], row["hyperparameters"]
        method: dict[str, Any] = {"name": name}
        if lora := re.search(r"((?:r[qkvo]=)+)(\d+)", settings):
            types = "+".join(re.findall(r"r([qkvo])", lora[1]))
            method |= {**LORA, "name": name, "weight_types": types, "r": int(lora[2])}
        if bottleneck := re.search(r"\br=(\d+)", settings):
            method |= {"bottleneck": int(bottleneck[1])}
        if prompt := re.search(r"lp=(\d+),li=(\d+)", settings):
            method |= {"l_p": int(prompt[1]), "l_i": int(prompt[2])}
        # prefix_layer runs its model once, which the meta device cannot do; its counts there are not its formula.
        if name != "full" and "prefix_layer" not in name:
            rows.append(pytest.param(method, float(row["trainable_params"].rstrip("M")), id=f"{name}-{settings}"))
    return rows


@pytest.mark.parametrize(("method", "millions"), _table_15())
def test_gpt3_counts_are_table_15(method: dict[str, Any], millions: float) -> None:
    # The paper cuts some counts and rounds others: 0.49M is 0.4M there, 603.98M is 603.8M.
    assert gpt3_count(method) / 1e6 == pytest.approx(millions, rel=5e-4, abs=0.1)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ({"name": "adapter_h", "bottleneck": 1}, 192 * (2 * GPT3_D + 1 + GPT3_D)),
        ({"name": "adapter_l", "bottleneck": 1}, 96 * (2 * GPT3_D + 1 + GPT3_D) + 96 * 2 * GPT3_D),
        ({**LORA, "r": 1}, 4_718_592),
        # 3 d of q, k, v, d of o, 4 d and d of the MLP, d each of two norms, and the last norm. The paper has 14.2M.
        ({"name": "bitfit"}, 96 * 11 * GPT3_D + GPT3_D),
        ({"name": "full"}, 96 * (12 * GPT3_D**2 + 13 * GPT3_D) + (50257 + 2048 + 2) * GPT3_D),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_all_of_gpt3(method: dict[str, Any], count: int) -> None:
    model = gpt3()
    methods.apply(model, method, [])
    assert trained_count(model) == count == gpt3_count(method)


def rates(model: Any, method: Mapping[str, Any], head_lr: float | None = None) -> dict[str, float]:
    """The learning rate of every trained parameter, each of which is in one group; lr is 0.5."""
    groups = methods.parameter_groups(model, method, head_modules(model), 0.5, head_lr)
    found = [(id(parameter), group["lr"]) for group in groups for parameter in group["params"]]
    assert all(group["params"] for group in groups)
    assert len(found) == len(dict(found)) == len(trainable_parameters(model))
    return {name: dict(found)[id(parameter)] for name, parameter in trainable_parameters(model).items()}


@pytest.mark.parametrize("name", ["full", "head_only", "lora", "lora+prefix_embed"])
@pytest.mark.parametrize("head_lr", [None, 0.125])
def test_one_rate_for_all_but_the_head_if_it_has_its_own(name: str, head_lr: float | None) -> None:
    model = adapted("bert", METHODS[name])
    expected = {key: head_lr or 0.5 if key.startswith("classifier.") else 0.5 for key in trainable_parameters(model)}
    assert rates(model, METHODS[name], head_lr) == expected


@pytest.mark.parametrize("name", ["lora", "lora+prefix_layer"])
@pytest.mark.parametrize("head_lr", [None, 0.125])
def test_with_lr_ratio_b_learns_faster(name: str, head_lr: float | None) -> None:
    method = {**METHODS[name], "lr_ratio": 16}
    model = adapted("bert", method)
    found = rates(model, method, head_lr)
    assert {rate for key, rate in found.items() if ".lora_B." in key} == {8.0}
    assert {rate for key, rate in found.items() if key.startswith("classifier.")} == {head_lr or 0.5}
    assert {rate for key, rate in found.items() if not re.search(r"\.lora_B\.|^classifier", key)} == {0.5}


@every_pair
def test_bf16_trains_in_fp32_and_comes_back(kind: str, name: str, tmp_path: Path) -> None:
    def half() -> Any:
        model = network(kind).to(torch.bfloat16)
        for head in head_modules(model):
            model.get_submodule(head).float()
        return model

    model, method = half(), METHODS[name]
    methods.apply(model, method, head_modules(model))
    trained = trainable_parameters(model)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**BATCH).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained.values())
    with torch.no_grad():
        for parameter in trained.values():  # a step of training is finer than bf16
            parameter += 1e-4 * torch.randn_like(parameter)
    io.save(model, tmp_path)
    fresh = half()
    methods.load(fresh, method, head_modules(fresh), tmp_path)
    loaded = trainable_parameters(fresh)
    assert all(torch.equal(loaded[key], parameter) for key, parameter in trained.items())
