"""Prefix methods against longer sequences built by hand, a row at a time and without padding."""

from typing import Any

import pytest
import torch
from networks import (
    BATCH,
    BLOCK,
    KINDS,
    LAYERS,
    METHODS,
    PAD,
    POSITIONS,
    ROWS,
    VOCABULARY,
    D,
    adapted,
    network,
    padded,
    train,
    trained_count,
)
from torch import Tensor

from experiments import methods
from experiments.models import head_modules
from experiments.prompts import contexts
from lora.config import InputError
from lora.model import lora_layers

ENCODERS = ("bert", "roberta", "deberta-v2")
PREFIXES = ("prefix_embed", "prefix_layer")
LENGTHS = [{"l_p": 3, "l_i": 2}, {"l_p": 3, "l_i": 0}, {"l_p": 0, "l_i": 2}]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_length = pytest.mark.parametrize("lengths", LENGTHS, ids=["both", "prefix", "infix"])
each_side = pytest.mark.parametrize("left", [False, True], ids=["right-padded", "left-padded"])


def prompted(kind: str, name: str, lengths: dict[str, int]) -> Any:
    """A model with a prompt whose vectors matter, as after training."""
    model = adapted(kind, {"name": name, **lengths})
    torch.manual_seed(1)
    torch.nn.init.normal_(model.base_model.prompt.vectors, std=0.5)
    return model


def order(kind: str, n: int, l_p: int, l_i: int) -> tuple[list[int], list[int]]:
    """Where the prompt's and the row's tokens stand: [CLS] P x I [SEP] in an encoder, P x1 … I xn in a decoder."""
    first = [0] if kind in ENCODERS else []
    names = [
        *(f"x{i}" for i in first),
        *(f"p{i}" for i in range(l_p)),
        *(f"x{i}" for i in range(len(first), n - 1)),
        *(f"p{i}" for i in range(l_p, l_p + l_i)),
        f"x{n - 1}",
    ]
    prompt = [names.index(f"p{i}") for i in range(l_p + l_i)]
    return prompt, [names.index(f"x{i}") for i in range(n)]


def positions(kind: str, length: int, padding: int) -> dict[str, Tensor]:
    """Absolute positions count the padding on the left, as these models' own do when they are given no positions."""
    start = padding + (PAD + 1 if kind == "roberta" else 0)
    return {"position_ids": torch.arange(start, start + length)[None]}


def by_hand(kind: str, row: list[int], vectors: Tensor, lengths: dict[str, int], padding: int = 0) -> Tensor:
    """Last hidden state (n, d) of one row; `vectors` (l, d) are embeddings, or (L, l, d) enter the L layers."""
    model = network(kind)
    prompt, own = order(kind, len(row), **lengths)
    embeds = torch.zeros(1, len(prompt) + len(row), D)
    embeds[0, own] = model.get_input_embeddings()(torch.tensor(row))
    if vectors.ndim == 2:
        embeds[0, prompt] = vectors
    else:
        for layer in range(LAYERS):
            _overwrite(model.get_submodule(BLOCK[kind].format(layer)), prompt, vectors[layer])
    length = embeds.shape[1]
    output = model.base_model(inputs_embeds=embeds, **positions(kind, length, padding)).last_hidden_state
    return output[0, own]


def _overwrite(block: Any, prompt: list[int], vectors: Tensor) -> None:
    forward = block.forward

    def replaced(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows = [vectors[prompt.index(i)] if i in prompt else hidden[0, i] for i in range(hidden.shape[1])]
        return forward(torch.stack(rows)[None], *args, **kwargs)

    block.forward = replaced


@each_side
@every_length
@pytest.mark.parametrize("name", PREFIXES)
@every_kind
@torch.no_grad()
def test_the_longer_sequence_by_hand(kind: str, name: str, lengths: dict[str, int], left: bool) -> None:
    model = prompted(kind, name, lengths)
    batch = padded(ROWS, left)
    hidden = model.base_model(**batch).last_hidden_state
    assert hidden.shape == (*batch["input_ids"].shape, D)
    plain = network(kind).base_model(**batch).last_hidden_state
    longest = hidden.shape[1]
    for row, states, before in zip(ROWS, hidden, plain, strict=True):
        where = slice(longest - len(row), longest) if left else slice(len(row))
        padding = longest - len(row) if left else 0
        expected = by_hand(kind, row, model.base_model.prompt.vectors, lengths, padding)
        torch.testing.assert_close(states[where], expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, before[where], atol=1e-2)


@pytest.mark.parametrize("name", PREFIXES)
@every_kind
@torch.no_grad()
def test_a_row_alone_is_the_row_in_a_batch(kind: str, name: str) -> None:
    model = prompted(kind, name, LENGTHS[0])
    together = model(**padded(ROWS)).logits
    alone = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@every_kind
@torch.no_grad()
def test_the_ways_to_call_a_model_agree(kind: str) -> None:
    model, ids = prompted(kind, "prefix_embed", LENGTHS[0]), torch.tensor(ROWS[:1])
    body = model.base_model
    expected = body(input_ids=ids).last_hidden_state
    embeds = network(kind).get_input_embeddings()(ids)
    calls = [body(ids), body(inputs_embeds=embeds), body(ids, attention_mask=torch.ones_like(ids))]
    assert all(torch.equal(output.last_hidden_state, expected) for output in calls)
    assert torch.equal(body(ids, return_dict=False)[0], expected)


@torch.no_grad()
def test_segments_stay_with_their_tokens() -> None:
    model, ids = prompted("bert", "prefix_embed", LENGTHS[0]), torch.tensor(ROWS[:1])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    states = model.base_model(ids, token_type_ids=segments).last_hidden_state[0]
    plain = network("bert")
    prompt, own = order("bert", 6, 3, 2)
    embeds, types = torch.zeros(1, 11, D), torch.zeros(1, 11, dtype=torch.long)
    embeds[0, own], embeds[0, prompt] = plain.get_input_embeddings()(ids[0]), model.base_model.prompt.vectors
    types[0, own] = segments[0]
    expected = plain.base_model(inputs_embeds=embeds, token_type_ids=types).last_hidden_state[0, own]
    torch.testing.assert_close(states, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PREFIXES)
@every_kind
def test_the_longest_input_fits_and_one_more_is_a_clear_error(kind: str, name: str) -> None:
    model = adapted(kind, {"name": name, **LENGTHS[0]})
    # RoBERTa numbers positions from the padding's own on.
    most = POSITIONS - 5 - (PAD + 1 if kind == "roberta" else 0)
    assert model(input_ids=torch.full((1, most), 9)).logits.isfinite().all()
    with pytest.raises(InputError, match="positions") as raised:
        model(input_ids=torch.full((1, most + 1), 9))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", PREFIXES)
@every_kind
def test_a_prompt_that_no_input_could_follow_is_refused(kind: str, name: str) -> None:
    def use() -> None:
        adapted(kind, {"name": name, "l_p": POSITIONS, "l_i": 1})(**BATCH)

    with pytest.raises(InputError, match="positions"):
        use()


def test_positions_and_caches_of_the_callers_own_are_refused() -> None:
    model = adapted("gpt2", METHODS["prefix_embed"])
    with pytest.raises(InputError, match="without position_ids"):
        model(input_ids=torch.tensor(ROWS[:1]), position_ids=torch.arange(6)[None])


@pytest.mark.parametrize("name", [*PREFIXES, "lora"])
@torch.no_grad()
def test_a_context_is_of_no_matter_to_classifiers_and_models_without_prompt(name: str) -> None:
    model = adapted("gpt2", METHODS[name])
    expected = model(**BATCH).logits
    with contexts(model, torch.tensor([2, 1, 1])):
        assert torch.equal(model(**BATCH).logits, expected)


@every_kind
def test_the_start_is_real_tokens(kind: str) -> None:
    model = adapted(kind, {"name": "prefix_embed", "l_p": 20, "l_i": 8})
    vectors, embeddings = model.base_model.prompt.vectors, network(kind).get_input_embeddings().weight
    assert all((embeddings == vector).all(1).any() for vector in vectors)
    assert len(vectors.unique(dim=0)) > 10


@every_kind
def test_the_start_of_every_layer_is_what_some_tokens_give(kind: str) -> None:
    """The first layer's vectors tell the tokens; what enters the further layers then follows."""
    model = adapted(kind, {"name": "prefix_layer", "l_p": 4, "l_i": 2})
    vectors, plain = model.base_model.prompt.vectors.detach(), network(kind)
    entered: list[Tensor] = []
    for layer in range(LAYERS):
        block = plain.get_submodule(BLOCK[kind].format(layer))
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0][0]))
    with torch.no_grad():
        distances = []
        for token in torch.arange(VOCABULARY):  # as if all six were this token
            plain.base_model(input_ids=token.expand(1, 6), attention_mask=torch.ones(1, 6, dtype=torch.long))
            distances.append((entered[0] - vectors[0]).abs().amax(-1))
            entered.clear()
        nearest = torch.stack(distances).min(0)
        assert nearest.values.max() < 1e-4
        plain.base_model(input_ids=nearest.indices[None], attention_mask=torch.ones(1, 6, dtype=torch.long))
    for found, expected in zip(vectors, entered, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PREFIXES)
@every_kind
def test_with_lora_both_parts_train(kind: str, name: str) -> None:
    method = METHODS[f"lora+{name}"]
    model = adapted(kind, method)
    lora, prompt = (trained_count(adapted(kind, METHODS[part])) for part in ("lora", name))
    assert trained_count(model) == lora + prompt - trained_count(adapted(kind, METHODS["head_only"]))
    vectors = model.base_model.prompt.vectors.detach().clone()
    train(model, method, BATCH)
    moved = (model.base_model.prompt.vectors != vectors).flatten(0, -2).any(-1)
    assert moved.all()  # every token's vector, of every layer
    assert all(B.any() for _, layer in lora_layers(model) for B in layer.lora_B.values())
    # Each part alone changes what the model says.
    logits = model(**BATCH).logits
    with torch.no_grad():
        model.base_model.prompt.vectors.copy_(vectors)
    assert not torch.equal(model(**BATCH).logits, logits)


def test_a_seed_gives_the_same_prompt() -> None:
    starts = []
    for seed in (3, 3, 4):
        model = network("bert")
        torch.manual_seed(seed)
        methods.apply(model, METHODS["prefix_layer"], head_modules(model))
        starts.append(model.base_model.prompt.vectors)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
