"""BAdam: Adam on one block of layers at a time (Luo et al. 2024, arXiv 2404.02827, Algorithm 1).

Every `switch` steps the next block has its turn, with moments that start at zero. The others stay as they are and ask
for no gradients, so that neither these nor moments of them are held, and the backward pass ends at the active block.

A block is `block` numbered layers, one in the paper. The task's head, which starts at random, is always active and
keeps its moments, as the authors advise. All else (embeddings, what is outside the layers, a language model's output
layer) is never trained, as in their package: the embeddings alone can be larger than all blocks but their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from experiments.layers import layers
from experiments.method_settings import BAdam
from lora.config import InputError


def attach(optimizer: torch.optim.Optimizer, model: nn.Module, method: BAdam, steps: int, seed: int) -> None:
    """Make `optimizer` switch blocks of `model` in a run of so many steps; `seed` is of the random order.

    Raises InputError if some block would never have its turn.
    """
    switch, order, blocks = method.switch, method.order, _blocks(model, method.block)
    if len(blocks) * switch > steps:
        raise InputError(
            f"method.switch = {switch}: {len(blocks)} blocks take {len(blocks) * switch} steps, but the run has "
            f"{steps}: some layers would never be trained; give a smaller switch, or more layers a block (method.block)"
        )
    turns = _turns(len(blocks), order, seed)
    _activate(optimizer, blocks, next(turns))
    done = 0

    def after_step(*_: Any) -> None:
        nonlocal done
        done += 1
        if done % switch == 0:
            _activate(optimizer, blocks, next(turns))

    optimizer.register_step_post_hook(after_step)


def _blocks(model: nn.Module, count: int) -> list[list[nn.Parameter]]:
    """The parameters of each `count` layers, from the first to the last."""
    found = layers(model)
    return [
        [parameter for layer in found[first : first + count] for parameter in layer.parameters()]
        for first in range(0, len(found), count)
    ]


def _turns(count: int, order: str, seed: int) -> Iterator[int]:
    """Numbers of blocks, all of them in every cycle; the random order is another in each."""
    generator = torch.Generator().manual_seed(seed)
    rising = list(range(count))
    while True:
        if order == "random":
            yield from torch.randperm(count, generator=generator).tolist()
        else:
            yield from rising if order == "ascending" else rising[::-1]


def _activate(optimizer: torch.optim.Optimizer, blocks: list[list[nn.Parameter]], active: int) -> None:
    for index, block in enumerate(blocks):
        for parameter in block:
            parameter.requires_grad_(index == active)
            parameter.grad = None
            optimizer.state.pop(parameter, None)
