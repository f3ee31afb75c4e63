"""Prefix methods in causal language models: pairs and generation against sequences built by hand, a row at a time.

The oracle is the same model without hooks, cache and padding: it reads [prefix, x, infix, y] as embeddings.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from networks import LORA, PAD, padded, randomise_trained
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from experiments import methods
from experiments.prompts import contexts
from lora.config import InputError
from lora.model import trainable_parameters

D, LAYERS, VOCABULARY, EOS = 16, 2, 40, 3
SIZES = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "max_position_embeddings": 48}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {  # the name of a layer, sizes
    "llama": ("model.layers.{}", {**SIZES, "intermediate_size": 24, "num_key_value_heads": 1}),
    "gpt2": ("transformer.h.{}", {"n_embd": D, "n_layer": LAYERS, "n_head": 2, "n_positions": 48}),
    "opt": ("model.decoder.layers.{}", {**SIZES, "ffn_dim": 24, "word_embed_proj_dim": D}),
    "qwen2": ("model.layers.{}", {**SIZES, "intermediate_size": 24, "num_key_value_heads": 1}),
}
LENGTHS = {"both": {"l_p": 3, "l_i": 2}, "prefix": {"l_p": 3, "l_i": 0}, "infix": {"l_p": 0, "l_i": 2}}
PREFIXES = ("prefix_embed", "prefix_layer")
SEARCH = {"max_new_tokens": 5, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False}
X = [[2, 9, 17, 33, 21, 5], [2, 8], [2, 30, 11, 12]]
Y = [[7, 14, EOS], [22, 6, 28, 13, EOS], [EOS]]
PAIRS = [x + y for x, y in zip(X, Y, strict=True)]
every_family = pytest.mark.parametrize("family", FAMILIES)
every_name = pytest.mark.parametrize("name", PREFIXES)
every_case = pytest.mark.parametrize(
    ("family", "name", "lengths"),
    [(family, name, LENGTHS["both"]) for family in FAMILIES for name in PREFIXES]
    + [("gpt2", name, LENGTHS[only]) for only in ("prefix", "infix") for name in PREFIXES],
    ids=lambda value: "+".join(f"{n}" for n in value.values()) if isinstance(value, dict) else value,
)
each_side = pytest.mark.parametrize("left", [False, True], ids=["right-padded", "left-padded"])


def plain(family: str) -> Any:
    """A model whose weights, biases and positions all matter; the same one at every call."""
    config = AutoConfig.for_model(family, vocab_size=VOCABULARY, bos_token_id=2, **FAMILIES[family][1])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        nn.init.normal_(parameter, mean=1.0 if is_scale else 0.0, std=0.4)
    return model.eval()


def adapted(family: str, method: Mapping[str, Any]) -> Any:
    """A model with a method whose parameters matter, as after training."""
    model = plain(family)
    methods.apply(model, method, [])
    randomise_trained(model)
    return model


def vectors(model: nn.Module) -> Tensor:
    (found,) = (parameter for name, parameter in model.named_parameters() if name.endswith("prompt.vectors"))
    return found


def by_hand(family: str, prompt: Tensor, l_p: int, l_i: int) -> Callable[[list[int], list[int]], Tensor]:
    """A function of x and y: logits (1 + len(y), vocabulary) of y_1, … and of what follows y."""
    model, block = plain(family), FAMILIES[family][0]
    places: list[int] = []

    def overwrite(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            order = [prompt[layer, places.index(i)] if i in places else row for i, row in enumerate(args[0][0])]
            return (torch.stack(order)[None], *args[1:])

        return hook

    if prompt.ndim == 3:
        for layer in range(LAYERS):
            model.get_submodule(block.format(layer)).register_forward_pre_hook(overwrite(layer))
    first = prompt if prompt.ndim == 2 else prompt[0]

    def logits(x: list[int], y: list[int]) -> Tensor:
        places[:] = [*range(l_p), *(l_p + len(x) + i for i in range(l_i))]
        own = model.get_input_embeddings()(torch.tensor(x + y))
        rows = torch.cat([first[:l_p], own[: len(x)], first[l_p:], own[len(x) :]])
        found: Tensor = model(inputs_embeds=rows[None], use_cache=False).logits[0]
        return found[-1 - len(y) :]

    return logits


def generated(model: Any, rows: list[list[int]], beams: int = 1, **options: Any) -> list[tuple[list[int], Tensor]]:
    """What continues each row of a left-padded batch, without pads, and its scores: of the steps, or of the beam."""
    batch, search = padded(rows, left=True), {**SEARCH, "num_beams": beams, **options}
    with torch.no_grad():
        found = model.generate(**batch, **search, return_dict_in_generate=True, output_logits=True, output_scores=True)
    results = []
    for index, tokens in enumerate(found.sequences[:, batch["input_ids"].shape[1] :].tolist()):
        own = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        steps = [step[index] for step in found.logits[: len(own)]]
        results.append((own, torch.stack(steps) if beams == 1 else found.sequences_scores[index]))
    return results


def same(found: list[tuple[list[int], Tensor]], expected: list[tuple[list[int], Tensor]]) -> None:
    for (tokens, scores), (other, other_scores) in zip(found, expected, strict=True):
        assert tokens == other
        torch.testing.assert_close(scores, other_scores, atol=1e-4, rtol=1e-4)


def searched_by_hand(family: str, prompt: Tensor, l_p: int, l_i: int, beams: int) -> list[tuple[list[int], Tensor]]:
    """transformers' search, a row of X at a time, over a model that is nothing but the oracle's logits."""
    logits, results = by_hand(family, prompt, l_p, l_i), []
    for x in X:
        model = plain(family)

        def forward(input_ids: Tensor, attention_mask: Any = None, n: int = len(x), **kwargs: Any) -> CausalLMOutput:
            return CausalLMOutput(logits=torch.stack([logits(row[:n], row[n:])[-1:] for row in input_ids.tolist()]))

        model.forward = forward
        results += generated(model, [x], beams, use_cache=False)
    return results


@pytest.mark.parametrize("beams", [1, 3])
@every_case
@torch.no_grad()
def test_generation_is_a_search_over_sequences_by_hand(
    family: str, name: str, lengths: dict[str, int], beams: int
) -> None:
    model = adapted(family, {"name": name, **lengths})
    expected = searched_by_hand(family, vectors(model), **lengths, beams=beams)
    same(generated(model, X, beams), expected)
    same([row for x in X for row in generated(model, [x], beams)], expected)
    assert [tokens for tokens, _ in expected] != [tokens for tokens, _ in generated(plain(family), X, beams)]
    assert max(len(tokens) for tokens, _ in expected) > 3


@pytest.mark.parametrize(
    "method",
    [
        *({"name": name, "bottleneck": 4} for name in ("adapter_h", "adapter_l")),
        {"name": "bitfit"},
        *({**LORA, **LENGTHS["both"], "name": f"lora+{name}"} for name in PREFIXES),
    ],
    ids=lambda method: method["name"],
)
@pytest.mark.parametrize("family", ["gpt2", "opt"])
@torch.no_grad()
def test_the_cache_changes_nothing(family: str, method: Mapping[str, Any]) -> None:
    model = adapted(family, method)
    alone = []
    for x in X:
        with contexts(model, torch.tensor([len(x)])):
            alone += generated(model, [x], use_cache=False)
    same(generated(model, X), alone)
    assert [tokens for tokens, _ in alone] != [tokens for tokens, _ in generated(plain(family), X)]


@torch.no_grad()
def test_a_cache_by_hand() -> None:
    """Steps of one's own, of one and of several tokens, with the mask of what was given and without positions."""
    model = adapted("gpt2", {"name": "prefix_layer", **LENGTHS["both"]})
    logits = by_hand("gpt2", vectors(model), **LENGTHS["both"])
    batch = padded([X[0], X[1]], left=True)
    output = model(**batch, use_cache=True)
    found, mask = [output.logits[:, -1:]], batch["attention_mask"]
    for y in ([7], [14, 6]):
        mask = torch.cat([mask, mask.new_ones(2, len(y))], dim=1)
        output = model(torch.tensor([y, y]), attention_mask=mask, past_key_values=output.past_key_values)
        found.append(output.logits)
    for x, states in zip(X[:2], torch.cat(found, dim=1), strict=True):
        torch.testing.assert_close(states, logits(x, [7, 14, 6]), atol=1e-4, rtol=1e-4)


@each_side
@every_case
@torch.no_grad()
def test_a_target_follows_the_infix(family: str, name: str, lengths: dict[str, int], left: bool) -> None:
    model = adapted(family, {"name": name, **lengths})
    logits, batch = by_hand(family, vectors(model), **lengths), padded(PAIRS, left)
    with contexts(model, torch.tensor([len(x) for x in X])):
        found = model(**batch).logits
    assert found.shape == (*batch["input_ids"].shape, VOCABULARY)
    for states, mask, x, y in zip(found, batch["attention_mask"], X, Y, strict=True):
        row = states[mask.bool()]
        torch.testing.assert_close(row[len(x) - 1 :], logits(x, y), atol=1e-4, rtol=1e-4)
        # Other tokens of the context keep their own outputs: the infix is not before them.
        prefix = by_hand(family, vectors(model)[..., : lengths["l_p"], :], lengths["l_p"], 0)
        torch.testing.assert_close(row[: len(x) - 1], prefix(x[:1], x[1:-1]), atol=1e-4, rtol=1e-4)


def loss(model: Any, pairs: list[int], left: bool = False) -> Tensor:
    """Mean over the target tokens of these PAIRS."""
    batch = padded([PAIRS[index] for index in pairs], left)
    with contexts(model, torch.tensor([len(X[index]) for index in pairs])):
        logits = model(**batch).logits
    rows = [states[mask.bool()] for states, mask in zip(logits, batch["attention_mask"], strict=True)]
    kept = [row[len(X[index]) - 1 : -1] for row, index in zip(rows, pairs, strict=True)]
    return functional.cross_entropy(torch.cat(kept), torch.tensor([token for index in pairs for token in Y[index]]))


@every_name
@every_family
def test_every_vector_learns_and_padding_teaches_nothing(family: str, name: str) -> None:
    model = adapted(family, {"name": name, **LENGTHS["both"]})
    total = sum(len(y) for y in Y)
    alone = torch.stack([loss(model, [index]) * len(y) / total for index, y in enumerate(Y)]).sum()
    alone.backward()
    expected = vectors(model).grad
    assert expected is not None and (expected.abs().amax(-1) > 1e-5).all()
    for left in (False, True):
        model.zero_grad()
        together = loss(model, [0, 1, 2], left)
        together.backward()
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(vectors(model).grad, expected, atol=1e-5, rtol=1e-4)


def test_what_would_go_wrong_silently_is_an_error() -> None:
    model = adapted("llama", {"name": "prefix_embed", **LENGTHS["both"]})
    batch, sizes = padded(PAIRS), torch.tensor([len(x) for x in X])

    def within(lengths: Tensor | None, **options: Any) -> None:
        with contexts(model, lengths):
            model(**batch, **options)

    cached = model(**padded(X), use_cache=True).past_key_values
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("tell where it ends", lambda: within(None, use_cache=False)),
        ("tell where it ends", lambda: generated(model, X, use_cache=False)),
        ("contexts of", lambda: within(sizes * 0)),
        ("contexts of", lambda: within(batch["attention_mask"].sum(1) + 1)),
        ("contexts of", lambda: within(sizes[:1])),
        ("without position_ids", lambda: within(sizes, position_ids=torch.arange(9)[None] + 1)),
        ("cache that grows", lambda: generated(model, X, cache_implementation="static")),
        ("attention_mask of shape", lambda: model(**padded(X), past_key_values=cached)),
        ("more than the model's 48 positions", lambda: generated(model, X, max_new_tokens=60, eos_token_id=None)),
    ]
    for message, call in calls:
        with pytest.raises(InputError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
    model.train()
    with pytest.raises(InputError, match="tell where it ends"):
        within(None)
    within(sizes)


def test_the_start_of_every_layer_of_opt() -> None:
    model = plain("opt")
    methods.apply(model, {"name": "prefix_layer", **LENGTHS["both"]}, [])
    assert [(*parameter.shape,) for parameter in trainable_parameters(model).values()] == [(LAYERS, 5, D)]
    assert vectors(model).std() > 0.1
