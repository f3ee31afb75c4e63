"""What LoRA costs in parameters, and the rank that a number of parameters buys (Hu et al. 2021, section 7.1)."""

from __future__ import annotations

import math

from torch import nn

from lora.config import LoRAConfig
from lora.errors import InputError, is_count
from lora.layer import turned
from lora.targets import Place, find_places
from lora.variants import PLAIN, Update, chosen


def cost(d: int, k: int, r: int, variant: str = PLAIN) -> int:
    """Parameters of one adapter of a matrix W0 (d, k): A (r, k), B (d, r) and what a variant trains beside them."""
    return r * (d + k) + sum(map(math.prod, chosen(Update, variant).shapes(d, k, r).values()))


def _shapes(model: nn.Module, places: list[Place]) -> list[tuple[int, int]]:
    modules = dict(model.named_modules())
    weights = [(modules[place.module], place.part.rows) for place in places]
    shapes = [turned(module, module.get_parameter("weight"))[rows].shape for module, rows in weights]
    return [(d, k) for d, k in shapes]


def parameters(model: nn.Module, config: LoRAConfig) -> int:
    """Parameters of all adapters of `config` in `model`, which may be on the meta device: nothing is loaded.

    Raises InputError as `lora.targets.find_places`.
    """
    places = find_places(model, config)
    shapes = _shapes(model, places)
    return sum(cost(d, k, place.part.r, config.variant) for place, (d, k) in zip(places, shapes, strict=True))


def rank(model: nn.Module, config: LoRAConfig, budget: int) -> int:
    """The rank r, one for all targets of `config`, whose own does not count, with which they have `budget` parameters.

    The model may be on the meta device. Raises InputError, naming the nearest budgets and their ranks, if no r from 1
    to the smallest min(d, k) meets the budget exactly, and as `lora.targets.find_places`.
    """
    if not is_count(budget):
        raise InputError(f"budget {budget!r}: it must be a whole number of parameters of at least 1")
    shapes = _shapes(model, find_places(model, config))
    largest = min(min(shape) for shape in shapes)
    without, one = (sum(cost(d, k, r, config.variant) for d, k in shapes) for r in (0, 1))
    r, rest = divmod(budget - without, one - without)
    if not rest and 1 <= r <= largest:
        return r
    names = "+".join(config.names)
    nearest = sorted({min(max(near, 1), largest) for near in (r, r + 1)})
    budgets = [f"{without + near * (one - without):,} parameters (r = {near})" for near in nearest]
    if len(nearest) == 2:
        between = f"the nearest are {budgets[0]} and {budgets[1]}"
    else:
        between = f"the {'smallest is' if r < 1 else 'largest is'} {budgets[0]}"
    raise InputError(f"no rank gives LoRA on {names} exactly {budget:,} parameters: {between}; choose one of these")
