"""Positions of prefix and infix tokens, and the hooks that make room for them around a model's body.

The body sees the longer sequence; what it gives back has the tokens that went in, so that heads, labels and padding
stay as they are. Prefix tokens come first (after an encoder's start token, whose output its head reads), infix tokens
follow the input. In a classifier they stand before its last token, from which a decoder reads its answer and which is
an encoder's end mark. In a language model they stand between a context x and its target y; what the body gives back
for the last token of x is then the output of the last infix token, from which y_1 is predicted. `contexts` tells where
x ends. Without it all tokens are x, which is what a generation starts from: its later steps find the prompt in the
cache, and add nothing. The whole of x must be read by one forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from experiments.layers import body, positions
from experiments.method_settings import Prompt as PromptSettings
from lora.config import InputError

KNOWN = (
    *("bert", "bloom", "camembert", "deberta-v2", "electra", "gemma", "gemma2", "gpt2", "gpt_neox", "llama", "mistral"),
    *("mixtral", "olmo2", "opt", "phi3", "qwen2", "qwen3", "roberta", "smollm3", "xlm-roberta"),
)  # model types whose positions and masks are as here


class Lengths(NamedTuple):
    """Numbers of prefix and infix tokens, l_p and l_i (paper, section 5.1)."""

    prefix: int
    infix: int


def lengths(model: nn.Module, method: PromptSettings) -> Lengths:
    """l_p and l_i of a method. Raises InputError if they are both zero, or too much for `model`."""
    found = Lengths(method.l_p, method.l_i)
    if not sum(found):
        raise InputError("method.l_p and method.l_i are both 0: there is nothing to train")
    if sum(found) >= positions(model):
        raise InputError(f"{sum(found)} tokens of the prompt leave no room in the model's {positions(model)} positions")
    return found


def places(mask: Tensor, count: Lengths, prefix: Tensor, infix: Tensor) -> Tensor:
    """New positions (batch, l_p + l_i + t) of the prefix, the infix and the t tokens of `mask` (batch, t).

    `prefix` and `infix` (batch, 1) are where these stand among the indices of the tokens: 1.5 is between 1 and 2.
    """
    batch, t = mask.shape
    index = torch.arange(t, device=mask.device, dtype=torch.float32).expand(batch, t)
    keys = torch.cat([prefix.expand(-1, count.prefix), infix.expand(-1, count.infix), index], dim=1)
    return keys.argsort(dim=1, stable=True).argsort(dim=1)


class Prompt(nn.Module):
    """Trained vectors of l_p + l_i tokens: `vectors` (l_p + l_i, d), or (L, l_p + l_i, d) with a set for each layer."""

    def __init__(self, vectors: Tensor, count: Lengths, language: bool) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.float())
        self.count = count
        self.language = language  # is it in a causal language model, or in a classifier?
        self.contexts: Tensor | None = None  # (batch,) numbers of real tokens before the infix
        # Of the batch that is in the body now, `places` and where each of its tokens' output is (batch, t); None if the
        # prompt is in the cache.
        self.places: Tensor | None = None
        self.outputs: Tensor | None = None


def attach(model: nn.Module, vectors: Tensor, count: Lengths) -> Prompt:
    """Give the body of `model` a Prompt as its child `prompt`, and the hooks that make room for it."""
    language = _is_language_model(model)
    # The module that the model calls: a language model's may be a part of its body (OPT).
    inner: Any = cast(Any, model).get_decoder() if language else body(model)
    inner.prompt = Prompt(vectors, count, language)
    inner.register_forward_pre_hook(_enter, with_kwargs=True)
    inner.register_forward_hook(_leave)
    return cast(Prompt, inner.prompt)


@contextmanager
def contexts(model: nn.Module, lengths: Tensor | None) -> Iterator[None]:
    """Within it the first `lengths` (batch,) real tokens of each row are its context, the others its target.

    It matters to a language model with infix tokens, which stand between the two; None takes all tokens for context.
    A model without a prompt is left as it is. A forward within it raises InputError if a row has no such context.
    """
    prompt = next((module for module in model.modules() if isinstance(module, Prompt)), None)
    if prompt is None:
        yield
        return
    before, prompt.contexts = prompt.contexts, lengths
    try:
        yield
    finally:
        prompt.contexts = before


def _is_language_model(model: Any) -> bool:
    return causal(body(model)) and model.get_output_embeddings() is not None


def _enter(inner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
    """Forward pre-hook of the body: input_ids become inputs_embeds with the prompt's tokens among them."""
    prompt: Prompt = inner.prompt
    prompt.places = prompt.outputs = None
    names = inspect.signature(inner.forward).parameters
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    tokens, embeds = given.pop("input_ids", None), given.pop("inputs_embeds", None)
    if embeds is None:
        embeds = inner.get_input_embeddings()(tokens)
    (batch, t), extra = embeds.shape[:2], sum(prompt.count)
    cache, numbers = given.get("past_key_values"), given.get("position_ids")
    if not prompt.language and (numbers is not None or cache is not None):
        raise InputError("prefix methods number positions themselves: call the model without position_ids and cache")
    past = 0 if cache is None else cache.get_seq_length()
    mask = _mask(given.get("attention_mask"), embeds, past and past - extra)
    if numbers is not None and not ((numbers == _numbers(mask)[:, -t:]) | (mask[:, -t:] == 0)).all():
        raise InputError("prefix methods number positions themselves: call the model without position_ids of your own")
    if mask.shape[1] + extra > positions(inner):
        total = f"{mask.shape[1]} tokens and the prompt's {extra}"
        raise InputError(f"{total} are more than the model's {positions(inner)} positions: cut the text")

    first = mask.long().argmax(1, keepdim=True)
    if past:
        where = places(mask, Lengths(extra, 0), first - 0.5, first - 0.5)
        given["inputs_embeds"] = embeds
    else:
        where = prompt.places = _arrange(prompt, mask, first, inner, given.get("use_cache"))
        # A prompt with a set of vectors for each layer replaces what stands here at the first of them.
        vectors = prompt.vectors if prompt.vectors.ndim == 2 else embeds.new_zeros(extra, embeds.shape[-1])
        rows = torch.cat([vectors.to(embeds.dtype).expand(batch, -1, -1), embeds], dim=1)
        given["inputs_embeds"] = torch.empty_like(rows).scatter(1, spread(where, rows), rows)
        if given.get("token_type_ids") is not None:
            given["token_type_ids"] = _insert(given["token_type_ids"], where, extra, 0)
    given["attention_mask"] = _insert(mask, where, extra, 1)
    if prompt.language and "position_ids" in names:
        given["position_ids"] = _numbers(given["attention_mask"])[:, -given["inputs_embeds"].shape[1] :]
    return (), given


def _mask(mask: Tensor | None, embeds: Tensor, past: int) -> Tensor:
    """The mask (batch, past + t) of `past` tokens in the cache and the t of `embeds`; all are real if there is none."""
    shape = (len(embeds), past + embeds.shape[1])
    if mask is None:
        return torch.ones(shape, dtype=torch.long, device=embeds.device)
    if not isinstance(mask, Tensor) or mask.shape != shape:
        raise InputError(
            f"prefix methods need an attention_mask of shape {shape}, for a cache that grows as it is filled"
        )
    return mask


def _numbers(mask: Tensor) -> Tensor:
    """Positions (batch, t) that count the real tokens of each row from 0."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _arrange(prompt: Prompt, mask: Tensor, first: Tensor, inner: Any, use_cache: bool | None) -> Tensor:
    """`places` of the prompt and the tokens of `mask`, whose first real ones are `first` (batch, 1); sets `outputs`."""
    count, extra = prompt.count, sum(prompt.count)
    if not prompt.language:
        last = (torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32) * mask).amax(1, keepdim=True)
        found = places(mask, count, first + (-0.5 if causal(inner) else 0.5), last - 0.5)
        prompt.outputs = found[:, extra:]
        return found
    real = mask.long().cumsum(1)
    length = real[:, -1] if prompt.contexts is None else prompt.contexts.to(mask.device)
    if prompt.contexts is None and count.infix and (inner.training or use_cache is False):
        raise InputError("infix tokens follow the context: tell where it ends, or generate text with a cache")
    if length.shape != mask.shape[:1] or ((length < 1) | (length > real[:, -1])).any():
        raise InputError(
            f"contexts of {length.tolist()} tokens: each of the {len(mask)} rows needs one of its own tokens"
        )
    last = (real == length.unsqueeze(1)).long().argmax(1, keepdim=True)
    found = places(mask, count, first - 0.5, last + 0.5)
    own = found[:, extra:]
    prompt.outputs = own.scatter(1, last, found[:, extra - 1 : extra]) if count.infix else own
    return found


def _leave(inner: Any, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook of the body: the prompt's positions are taken out of the last hidden state."""
    outputs = inner.prompt.outputs
    if outputs is None:
        return output
    hidden = output[0]
    kept = hidden.gather(1, spread(outputs, hidden))
    if isinstance(output, tuple):
        return (kept, *output[1:])
    output.last_hidden_state = kept
    return output


def causal(inner: Any) -> bool:
    """True for a decoder, whose answer is read from the last token; an encoder's head reads the first.

    Raises InputError for an architecture of which this is not known.
    """
    if inner.config.model_type not in KNOWN:
        known = ", ".join(KNOWN)
        raise InputError(f"where a prefix goes in a {inner.config.model_type} model is not known (known: {known})")
    return not hasattr(inner, "encoder")


def spread(index: Tensor, like: Tensor) -> Tensor:
    """Positions (batch, n) as an index for gather and scatter along dimension 1 of `like` (batch, t, d)."""
    return index.unsqueeze(-1).expand(-1, -1, like.shape[-1])


def _insert(values: Tensor, where: Tensor, extra: int, value: int) -> Tensor:
    rows = torch.cat([values.new_full((len(values), extra), value), values], dim=1)
    return torch.empty_like(rows).scatter(1, where, rows)
