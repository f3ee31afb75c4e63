"""Prefix-layer tuning: trained activations in place of computed ones (paper, section 5.1; Li & Liang 2021)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.layers import body, layers
from experiments.method_settings import Prompt as PromptSettings
from experiments.methods import Backward
from experiments.prompts import Prompt, attach, lengths, spread


def apply(model: nn.Module, method: PromptSettings, backward: Backward) -> None:
    """Replace what enters each of the L layers at l_p prefix and l_i infix positions: L d (l_p + l_i) parameters.

    The first layer's are the tokens' embeddings, each further layer's replace what the layer before has computed; what
    the last layer computes at these positions is read by nothing. They start as the activations of random tokens.
    """
    count = lengths(model, method)
    blocks = layers(model)
    prompt = attach(model, _activations(model, blocks, sum(count)), count)
    for index, block in enumerate(blocks):
        block.register_forward_pre_hook(partial(_replace, prompt, index))


def _replace(prompt: Prompt, layer: int, block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if prompt.places is None:
        return args
    hidden = args[0]
    where = prompt.places[:, : sum(prompt.count)]
    vectors = prompt.vectors[layer].to(hidden.dtype).expand(len(hidden), -1, -1)
    return (hidden.scatter(1, spread(where, hidden), vectors), *args[1:])


@torch.no_grad()
def _activations(model: nn.Module, blocks: list[nn.Module], count: int) -> Tensor:
    """What enters each layer (L, count, d) when the body reads `count` random tokens."""
    inner, entered = body(model), list[Tensor]()
    handles = [
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0][0].detach().float())) for block in blocks
    ]
    tokens = torch.randint(inner.config.vocab_size, (1, count)).to(next(inner.parameters()).device)
    training = inner.training
    inner.eval()
    inner(input_ids=tokens)
    inner.train(training)
    for handle in handles:
        handle.remove()
    return torch.stack(entered)
