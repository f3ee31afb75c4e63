"""AdamW with moments in a precision of their own (Loshchilov & Hutter 2019, arXiv 1711.05101), one parameter at a time.

The step itself is torch's fused kernel in fp32, of a copy where a parameter is in 16 bits. torch's own AdamW holds the
moments in the precision of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class AdamW(torch.optim.Optimizer):
    """AdamW whose moments are held in `state_dtype`, fp32 or bf16. `seed` is of the rounding to bf16.

    bf16 has 8 significant bits: a change of less than 1/512 is lost where one rounds to the nearest number. The first
    moment moves by a tenth of what is new in a step. The second, with beta_2 = 0.999, by a thousandth: it would never
    fall, and steps would stay as small as the largest gradients have made them. So it is rounded up or down at random,
    right on average. Between steps a parameter has 4 bytes of moments; within its step they are fp32.
    """

    def __init__(
        self, groups: list[dict[str, Any]], weight_decay: float, state_dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> None:
        defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay}
        super().__init__(groups, defaults)
        device = self.param_groups[0]["params"][0].device
        self.state_dtype, self.generator = state_dtype, torch.Generator(device).manual_seed(seed)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """A step of every parameter that has a gradient; there is no closure."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], group)

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], settings: Mapping[str, Any]) -> None:
        """A step of one parameter, in place: lr, betas, eps and weight_decay are in `settings`, moments in `state`."""
        if "step" not in state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(gradient, dtype=self.state_dtype)
            state["exp_avg_sq"] = torch.zeros_like(gradient, dtype=self.state_dtype)
        first, second = state["exp_avg"].float(), state["exp_avg_sq"].float()
        beta1, beta2 = settings["betas"]
        weight = parameter.float()
        adamw(
            [weight], [gradient.float()], [first], [second], [], [state["step"]],
            fused=True, amsgrad=False, maximize=False, beta1=beta1, beta2=beta2, lr=settings["lr"],
            weight_decay=settings["weight_decay"], eps=settings["eps"],
        )  # fmt: skip
        if weight.dtype != parameter.dtype:
            parameter.copy_(weight)
        if self.state_dtype != torch.float32:
            state["exp_avg"].copy_(first)
            state["exp_avg_sq"].copy_(stochastically_rounded(second, self.generator))


def stochastically_rounded(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 values as bf16: one of the two neighbours, each as likely as it is near, so that the mean is the value."""
    noise = torch.randint(0, 1 << 16, values.shape, generator=generator, device=values.device, dtype=torch.int32)
    bits = noise.add_(values.view(torch.int32)).bitwise_and_(-1 << 16)  # bf16 is the upper half of fp32
    return bits.view(torch.float32).bfloat16()
