"""A causal language model's loss on plain text, in windows of one length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.models import Runtime
from experiments.prompts import contexts
from lora.config import InputError

BATCH = 4  # windows at a time: their logits are as many numbers as all their tokens times the vocabulary


def windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, count: int, length: int, name: str) -> Tensor:
    """At most `count` windows (n, length) of tokens, evenly spaced among all that lie within one document.

    Each document is cut into windows from its first token on; a rest that fills none is left out. Where the tokenizer
    sets a start mark before a text, each window begins with it. Raises InputError, which names the text, if no document
    fills a window.
    """
    start = [token for token in tokenizer("")["input_ids"] if token != tokenizer.eos_token_id]
    inner = length - len(start)
    found = [
        [*start, *tokens[first : first + inner]]
        for tokens in tokenizer(list(documents), add_special_tokens=False)["input_ids"]
        for first in range(0, len(tokens) - inner + 1, inner)
    ]
    if not found:
        raise InputError(f"no document of {name} has {inner} tokens: give more text, or a smaller --tokens")
    chosen = min(count, len(found))
    return torch.tensor([found[index * len(found) // chosen] for index in range(chosen)])


@torch.inference_mode()
def loss(model: PreTrainedModel, windows: Tensor, runtime: Runtime) -> float:
    """The mean of -log p(w_t | w_1 … w_{t-1}) over all tokens of the windows (n, t) but the first of each, in nats.

    Leaves the model in eval mode. A prompt that a method has put into the model comes before each window, its infix
    tokens after it.
    """
    model.eval()
    total, (n, t) = 0.0, windows.shape
    for first in range(0, n, BATCH):
        batch = windows[first : first + BATCH].to(runtime.device)
        whole = torch.full((len(batch),), t, device=runtime.device)
        with runtime.autocast, contexts(model, whole):
            output = model(input_ids=batch, attention_mask=torch.ones_like(batch), use_cache=False)
        predicted = output.logits[:, :-1].float().flatten(0, 1)
        total += functional.cross_entropy(predicted, batch[:, 1:].flatten(), reduction="sum").item()
    return total / (n * (t - 1))
