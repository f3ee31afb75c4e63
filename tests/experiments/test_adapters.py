"""Adapters against layers written by hand, in plain torch, from their weights."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import BATCH, BLOCK, KINDS, LAYERS, METHODS, D, adapted, network, randomise_trained
from torch import Tensor, nn
from torch.nn import functional as f

ADAPTERS = [name for name in METHODS if name.startswith("adapter")]
HEADS = 2


def trained(kind: str, name: str) -> Any:
    """An adapted model whose adapters do something: 4 dimensions of 16, every parameter drawn anew."""
    model = adapted(kind, METHODS[name])
    randomise_trained(model)
    return model


def block_of(model: nn.Module, kind: str, layer: int) -> Any:
    return model.get_submodule(BLOCK[kind].format(layer))


def hidden() -> Tensor:
    torch.manual_seed(7)
    return torch.randn(2, 5, D)


def bottleneck(adapter: Any, h: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """up(f(down(h)))."""
    low = activation(h @ adapter.down.weight.T + adapter.down.bias)
    return low @ adapter.up.weight.T + adapter.up.bias


def norm(module: Any, h: Tensor) -> Tensor:
    centred = h - h.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + module.eps).sqrt() * module.weight + module.bias


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention of q, k, v (batch, t, d) with two heads."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / (D // HEADS) ** 0.5
    if causal:
        t = scores.shape[-1]
        scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def linear(module: Any, h: Tensor) -> Tensor:
    return h @ module.weight.T + module.bias


def conv1d(module: Any, h: Tensor) -> Tensor:
    return h @ module.weight + module.bias


def bert_layer(block: Any, h: Tensor, name: str) -> Tensor:
    """Post-norm: each sublayer's output is added to its input, then normed."""
    own, attention = block.attention.self, block.attention.output
    o = linear(attention.dense, attend(linear(own.query, h), linear(own.key, h), linear(own.value, h), causal=False))
    if name == "adapter_h":
        o = o + bottleneck(attention.dense.adapter, o, f.gelu)
    h = norm(attention.LayerNorm, o + h)
    m = linear(block.output.dense, f.gelu(linear(block.intermediate.dense, h)))
    if name == "adapter_h":
        m = m + bottleneck(block.output.dense.adapter, m, f.gelu)
    s = m + h
    h = norm(block.output.LayerNorm, s)
    if name in ("adapter_p", "adapter_d") and hasattr(block.output.LayerNorm, "adapter"):
        h = norm(block.output.LayerNorm, s + bottleneck(block.output.LayerNorm.adapter, h, f.relu))
    if name == "adapter_l":
        h = h + bottleneck(block.adapter, norm(block.adapter.norm, h), f.relu)
    return h


def gpt2_layer(block: Any, h: Tensor, name: str) -> Tensor:
    """Pre-norm: each sublayer reads a normed input, and its output is added to the input itself."""
    q, k, v = conv1d(block.attn.c_attn, norm(block.ln_1, h)).chunk(3, dim=-1)
    o = conv1d(block.attn.c_proj, attend(q, k, v, causal=True))
    if name == "adapter_h":
        o = o + bottleneck(block.attn.c_proj.adapter, o, f.gelu)
    h = h + o
    inner = f.gelu(conv1d(block.mlp.c_fc, norm(block.ln_2, h)), approximate="tanh")
    m = conv1d(block.mlp.c_proj, inner)
    if name == "adapter_h":
        m = m + bottleneck(block.mlp.c_proj.adapter, m, f.gelu)
    h = h + m
    if name in ("adapter_p", "adapter_d") and hasattr(block, "adapter"):
        h = h + bottleneck(block.adapter, h, f.relu)
    if name == "adapter_l":
        h = h + bottleneck(block.adapter, norm(block.adapter.norm, h), f.relu)
    return h


def causal_mask(kind: str, t: int) -> Tensor | None:
    return torch.full((1, 1, t, t), torch.finfo(torch.float32).min).triu(1) if kind == "gpt2" else None


def run(block: nn.Module, kind: str, h: Tensor) -> Tensor:
    mask = causal_mask(kind, h.shape[1])
    output = block(h, attention_mask=mask)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", [*ADAPTERS, "head_only"])
@pytest.mark.parametrize(("kind", "by_hand"), [("bert", bert_layer), ("roberta", bert_layer), ("gpt2", gpt2_layer)])
def test_every_layer_is_what_the_authors_drew(kind: str, by_hand: Callable[..., Tensor], name: str) -> None:
    model, h = trained(kind, name), hidden()
    for layer in range(LAYERS):
        block = block_of(model, kind, layer)
        torch.testing.assert_close(run(block, kind, h), by_hand(block, h, name), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["adapter_p", "adapter_l"])
@pytest.mark.parametrize("kind", ["llama", "deberta-v2"])
def test_behind_a_layer_in_the_whole_model(kind: str, name: str) -> None:
    """The layer's own output, taken from a layer without adapter, and what follows by hand."""
    model, plain = trained(kind, name), network(kind)
    taken: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    block = block_of(model, kind, 1)
    block.register_forward_hook(lambda _, args, kwargs, out: taken.append((args, kwargs, out)), with_kwargs=True)
    sums: list[Tensor] = []
    plain_block = block_of(plain, kind, 1)
    if kind == "deberta-v2":
        plain_block.output.LayerNorm.register_forward_hook(lambda _, args, out: sums.append(args[0]))
    model(**{**BATCH, "use_cache": False} if kind == "llama" else BATCH)
    args, kwargs, found = taken[0]
    h = plain_block(*args, **kwargs)
    if isinstance(h, tuple):
        h, found = h[0], found[0]
    if name == "adapter_l":
        expected = h + bottleneck(block.adapter, norm(block.adapter.norm, h), f.relu)
    elif kind == "llama":
        expected = h + bottleneck(block.adapter, h, f.relu)
    else:
        last = plain_block.output.LayerNorm
        expected = norm(last, sums[0] + bottleneck(block.output.LayerNorm.adapter, h, f.relu))
    assert (expected - h).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_adapter_h_in_llama() -> None:
    model, plain = trained("llama", "adapter_h"), network("llama")
    for end in ("self_attn.o_proj", "mlp.down_proj"):
        module, own = (block_of(m, "llama", 1).get_submodule(end) for m in (model, plain))
        x = torch.randn(2, 5, own.in_features)
        out = x @ own.weight.T
        torch.testing.assert_close(module(x), out + bottleneck(module.adapter, out, f.gelu), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_the_pretrained_model_exactly(kind: str, name: str) -> None:
    model = adapted(kind, METHODS[name])
    assert torch.equal(model(**BATCH).logits, network(kind)(**BATCH).logits)
    randomise_trained(model)
    assert not torch.allclose(model(**BATCH).logits, network(kind)(**BATCH).logits, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_d_is_adapter_p_without_the_first_layers(kind: str) -> None:
    dropped, whole = trained(kind, "adapter_d"), adapted(kind, METHODS["adapter_p"])
    bottlenecks = {name: copy.deepcopy(m) for name, m in dropped.named_modules() if name.endswith(".adapter")}
    assert bottlenecks
    for name, module in bottlenecks.items():
        assert name.startswith(BLOCK[kind].format(2))
        whole.set_submodule(name, module)
    heads = {name: p for name, p in dropped.state_dict().items() if ".adapter." not in name}
    whole.load_state_dict(heads, strict=False)
    assert torch.equal(dropped(**BATCH).logits, whole(**BATCH).logits)
