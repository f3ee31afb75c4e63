"""Adapter modules: a bottleneck beside a skip connection, put behind modules of the model by forward hooks.

A hooked module gets the bottleneck as its child `adapter`, so that the model's own names stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.layers import body
from experiments.method_settings import Adapter
from lora.config import InputError


class Bottleneck(nn.Module):
    """The update up(f(down(norm(h)))) of h (…, d) through m dimensions: 2 d m + m + d parameters, with a norm 2 d more.

    `up` starts at zero, so that training starts at the pretrained model: the limit of the near-identity start of
    Houlsby et al., who draw both matrices with a small standard deviation.
    """

    def __init__(
        self, d: int, m: int, activation: Callable[[Tensor], Tensor], norm: bool, device: torch.device
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d, device=device) if norm else nn.Identity()
        self.down = nn.Linear(d, m, device=device)
        self.up = nn.Linear(m, d, device=device)
        self.activation = activation
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.up(self.activation(self.down(self.norm(h)))))


def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """Forward hook: h -> h + adapter(h) on a module's output, or on the first of its outputs."""
    if isinstance(output, tuple):
        return (after(module, args, output[0]), *output[1:])
    return output + cast(nn.Module, module.adapter)(output)


def within_norm(norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Forward hook of a layer norm that sees a sum s: LN(s) -> LN(s + adapter(LN(s)))."""
    return cast(Tensor, norm.forward(args[0] + cast(nn.Module, norm.adapter)(output)))


def attach(
    model: nn.Module,
    modules: Iterable[nn.Module],
    method: Adapter,
    activation: Callable[[Tensor], Tensor],
    hook: Callable[..., Any] = after,
    norm: bool = False,
) -> None:
    """Put a bottleneck of `method.bottleneck` dimensions behind each of `modules`.

    Raises InputError for a size above the model's width.
    """
    d, m = body(model).config.hidden_size, method.bottleneck
    if m > d:
        raise InputError(f"method.bottleneck = {m} is no bottleneck: the model is {d} wide")
    for module in modules:
        module.adapter = Bottleneck(d, m, activation, norm, next(module.parameters()).device)
        module.register_forward_hook(hook)
