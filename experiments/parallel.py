"""What training, evaluation and storing do where several processes compute one run: `experiments.processes` starts it.

    ddp     every process has the whole model; gradients of what is trained are summed by one all-reduce a step
    fsdp    the same, and each process holds its share of the frozen weights (torch's fully_shard), whose layers are
            gathered, one after the other, while they compute; what is trained is whole everywhere

Batches, their order and the loss, a mean over all rows (or target tokens) of a batch, are those of one process, and so
is all else but the rounding of sums and dropout's random numbers. Without such processes everything here does nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._pytree import tree_map_only

from experiments.layers import layers
from lora.config import InputError
from lora.model import trainable_parameters

T = TypeVar("T")
R = TypeVar("R")


def size() -> int:
    """How many processes compute a run together; 1 where torchrun has started none."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, 0 for the one that stores and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def agreed() -> Iterator[None]:
    """What one process refuses within it, all do. Raises InputError."""
    refused = None
    try:
        yield
    except InputError as error:
        refused = error
    said = [message for message in gathered(refused and str(refused)) if message]
    if refused:
        raise refused
    if said:
        raise InputError(said[0])


def begin(model: nn.Module, how: str, device: torch.device) -> None:
    """Make an adapted `model`, the same in all processes, ready to be trained by them, on `device`.

    Raises InputError for a device of which each process cannot have its own.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if device.type == "mps" or (device.type == "cuda" and local > torch.cuda.device_count()):
        raise InputError(f"runtime.parallel = {how}: there is no {device.type} device for each of {local} processes")
    trained = list(trainable_parameters(model).values())
    if how == "fsdp":
        mesh = init_device_mesh(device.type, (size(),))
        for module in (*layers(model), model):  # a layer at a time is whole on the device
            if any(not parameter.requires_grad for parameter in module.parameters()):
                fully_shard(module, mesh=mesh, ignored_params=set(trained))
        for tensor in (*trained, *model.buffers()):
            tensor.data = tensor.data.to(device)
    # As the first has it: what was computed on GPUs, as a start along a gradient, may differ in the last bit.
    for tensor in (*(trained if how == "fsdp" else model.parameters()), *model.buffers()):
        dist.broadcast(tensor.data, 0)
    if rank():
        torch.manual_seed(torch.initial_seed() + (rank() << 32))  # dropout of other rows is other dropout


def own(rows: list[T]) -> tuple[list[T], bool]:
    """The rows of a batch that this process computes, and whether they count: where there are none it computes one that
    does not, since all must take part in every pass."""
    mine = rows[rank() :: size()]
    return (mine, True) if mine else (rows[:1], False)


def summed(parameters: Sequence[torch.Tensor], losses: torch.Tensor) -> torch.Tensor:
    """Sum gradients, in place, and the losses (n,) of parts of a batch over all processes; returns these as they are,
    or their sum (1,), on the device."""
    if size() == 1:
        return losses
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    last = losses.sum(0, keepdim=True, dtype=torch.float64).to(gradients[0].dtype)
    joined = torch.cat([gradient.flatten() for gradient in (*gradients, last)])
    dist.all_reduce(joined)
    *pieces, last = torch.split(joined, [gradient.numel() for gradient in (*gradients, last)])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return last


def gathered(value: T) -> list[T]:
    """This value of every process, in all of them."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def each(batches: Sequence[T], compute: Callable[[T], R]) -> list[R]:
    """`compute(batch)` of every batch, each by one process, in all of them. All compute equally many. Tensors that are
    computed are fetched from the device when all batches are done."""
    rounds = math.ceil(len(batches) / size())
    mine = [compute(batches[min(number * size() + rank(), len(batches) - 1)]) for number in range(rounds)]
    found = gathered(tree_map_only(torch.Tensor, torch.Tensor.cpu, mine))
    return [found[number % size()][number // size()] for number in range(len(batches))]
