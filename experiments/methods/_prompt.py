"""Positions of prefix and infix tokens, and the hooks that make room for them around a model's body.

The body sees the longer sequence; what it gives back has the tokens that went in, so that heads, labels and padding
stay as they are. Prefix tokens come first (after an encoder's start token, whose output its head reads), infix tokens
follow the input: they stand before its last token, from which a decoder reads its answer and which is an encoder's end
mark.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from experiments.methods import size
from experiments.methods._layers import body, positions
from lora.config import InputError
from lora.targets import ARCHITECTURES


class Lengths(NamedTuple):
    """Numbers of prefix and infix tokens, l_p and l_i (paper, section 5.1)."""

    prefix: int
    infix: int


def lengths(model: nn.Module, method: Mapping[str, Any]) -> Lengths:
    """l_p and l_i of a method config. Raises InputError if they are no numbers, both zero, or too much for `model`."""
    found = Lengths(size(method, "l_p", smallest=0), size(method, "l_i", smallest=0))
    if not sum(found):
        raise InputError("method.l_p and method.l_i are both 0: there is nothing to train")
    if sum(found) >= positions(model):
        raise InputError(f"{sum(found)} tokens of the prompt leave no room in the model's {positions(model)} positions")
    return found


def places(mask: Tensor, count: Lengths, after_first: bool) -> Tensor:
    """New positions (batch, l_p + l_i + t) of the prefix, the infix and the t tokens of `mask` (batch, t)."""
    batch, t = mask.shape
    index = torch.arange(t, device=mask.device, dtype=torch.float32).expand(batch, t)
    first = mask.long().argmax(1, keepdim=True) + (0.5 if after_first else -0.5)
    last = (index * mask).amax(1, keepdim=True) - 0.5
    keys = torch.cat([first.expand(-1, count.prefix), last.expand(-1, count.infix), index], dim=1)
    return keys.argsort(dim=1, stable=True).argsort(dim=1)


class Prompt(nn.Module):
    """Trained vectors of l_p + l_i tokens: `vectors` (l_p + l_i, d), or (L, l_p + l_i, d) with a set for each layer."""

    def __init__(self, vectors: Tensor, count: Lengths) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.float())
        self.count = count
        self.places = torch.empty(0)  # of the batch that is in the body now, for the layers' hooks


def attach(model: nn.Module, vectors: Tensor, count: Lengths) -> Prompt:
    """Give the body of `model` a Prompt as its child `prompt`, and the hooks that make room for it."""
    inner = body(model)
    causal(inner)  # is it known?
    inner.prompt = Prompt(vectors, count)
    inner.register_forward_pre_hook(_enter, with_kwargs=True)
    inner.register_forward_hook(_leave)
    return cast(Prompt, inner.prompt)


def _enter(inner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
    """Forward pre-hook of the body: input_ids become inputs_embeds with the prompt's tokens among them."""
    given = {**dict(zip(inspect.signature(inner.forward).parameters, args, strict=False)), **kwargs}
    if given.get("position_ids") is not None or given.get("past_key_values") is not None:
        raise InputError("prefix methods number positions themselves: call the model without position_ids and cache")
    tokens, embeds = given.pop("input_ids", None), given.pop("inputs_embeds", None)
    if embeds is None:
        embeds = inner.get_input_embeddings()(tokens)
    mask = given.get("attention_mask")
    if mask is None:
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
    prompt: Prompt = inner.prompt
    batch, extra = len(mask), sum(prompt.count)
    if mask.shape[1] + extra > positions(inner):
        total = f"{mask.shape[1]} tokens and the prompt's {extra}"
        raise InputError(f"{total} are more than the model's {positions(inner)} positions: cut the text")
    prompt.places = places(mask, prompt.count, after_first=not causal(inner))
    # A prompt with a set of vectors for each layer replaces what stands here at the first of them.
    vectors = prompt.vectors if prompt.vectors.ndim == 2 else embeds.new_zeros(extra, embeds.shape[-1])
    rows = torch.cat([vectors.to(embeds.dtype).expand(batch, -1, -1), embeds], dim=1)
    given["inputs_embeds"] = torch.empty_like(rows).scatter(1, spread(prompt.places, rows), rows)
    given["attention_mask"] = _insert(mask, prompt.places, extra, 1)
    if given.get("token_type_ids") is not None:
        given["token_type_ids"] = _insert(given["token_type_ids"], prompt.places, extra, 0)
    return (), given


def _leave(inner: Any, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of the body: the prompt's positions are taken out of the last hidden state."""
    hidden = output[0]
    own = inner.prompt.places[:, sum(inner.prompt.count) :]
    kept = hidden.gather(1, spread(own, hidden))
    if isinstance(output, tuple):
        return (kept, *output[1:])
    output.last_hidden_state = kept
    return output


def causal(inner: Any) -> bool:
    """True for a decoder, whose answer is read from the last token; an encoder's head reads the first.

    Raises InputError for an architecture of which this is not known.
    """
    if inner.config.model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise InputError(f"where a prefix goes in a {inner.config.model_type} model is not known (known: {known})")
    return not hasattr(inner, "encoder")


def spread(index: Tensor, like: Tensor) -> Tensor:
    """Positions (batch, n) as an index for gather and scatter along dimension 1 of `like` (batch, t, d)."""
    return index.unsqueeze(-1).expand(-1, -1, like.shape[-1])


def _insert(values: Tensor, where: Tensor, extra: int, value: int) -> Tensor:
    rows = torch.cat([values.new_full((len(values), extra), value), values], dim=1)
    return torch.empty_like(rows).scatter(1, where, rows)
