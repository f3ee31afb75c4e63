"""LoRA-GA: A and B start along the gradient (Wang et al. 2024, arXiv 2407.05000, section 3 and algorithm 1).

    G = dL/dW0 = U S V^T      A = c V_[1:r]^T      B = c U_[r+1:2r]      c = d^(1/4) / sqrt(gamma)

and the base weight becomes W0 - s B A. A first small step of gradient descent then changes s B A along

    s^2 (G A^T A + B B^T G) = s^2 c^2 U_[1:2r] S_[1:2r] V_[1:2r]^T

the best approximation of rank 2r to G, the direction of full fine-tuning (theorem 3.1). c is its stable scaling,
with which the size of the outputs does not depend on the width d (theorem 3.2); its s is alpha / sqrt(r), our `rslora`.
gamma is 16, as in the authors' code. (peft 0.21 multiplies B by S, and A not by c: the same directions in other sizes.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lora.errors import InputError
from lora.layer import turned
from lora.variants import Backward, Weights
from lora.variants._residual import Residual

GAMMA = 16


class _LoRAGA(Residual):
    def prepare(
        self, model: nn.Module, modules: Sequence[str], backward: Backward | None, pretrained: Weights | None
    ) -> Mapping[str, Tensor]:
        if backward is None:
            raise InputError("init lora_ga starts from gradients: give inject `backward`, which runs loss.backward()")
        found = gradients(model, modules, backward)
        return {name: turned(model.get_submodule(name), gradient) for name, gradient in found.items()}

    def start(self, w0: Tensor, r: int, scaling: float, given: Tensor | None) -> tuple[Tensor, Tensor]:
        if given is None:
            raise InputError("init lora_ga starts from the gradient of W0: adapt modules by inject")
        return along(given, r)


VARIANT = _LoRAGA(__name__)


def along(gradient: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """A (r, k) and B (d, r), fp32, from G (d, k).

    Raises InputError if the gradient is zero or not finite, or if 2r is above min(d, k).
    """
    d, k = gradient.shape
    if 2 * r > min(d, k):
        raise InputError(f"init lora_ga takes 2r = {2 * r} singular vectors, but min(d, k) is {min(d, k)}: lower r")
    if not gradient.any() or not gradient.isfinite().all():
        raise InputError("init lora_ga got a gradient of W0 that is zero or not finite: calibrate on other batches")
    U, _, Vh = torch.linalg.svd(gradient.float(), full_matrices=False)
    c = d**0.25 / GAMMA**0.5
    return c * Vh[:r], c * U[:, r : 2 * r]


def gradients(model: nn.Module, names: Iterable[str], backward: Backward) -> dict[str, Tensor]:
    """dL/dW0 of the weights of the named modules, each of the weight's own shape, summed over all that `backward` runs.

    Nothing else gets a gradient meanwhile, and afterwards every parameter is as it was, `grad` and all. The weights are
    replaced for the time by leaves of their own, so that a weight tied to another module gets its own gradient alone.
    Raises InputError if no gradient reaches one of them.
    """
    modules = {name: model.get_submodule(name) for name in names}
    weights = {name: cast(nn.Parameter, module.weight) for name, module in modules.items()}
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    leaves = {name: nn.Parameter(weight.detach()) for name, weight in weights.items()}
    try:
        model.requires_grad_(False)
        for name, module in modules.items():
            module.weight = leaves[name]
        with torch.enable_grad():
            backward()
    finally:
        for name, module in modules.items():
            module.weight = weights[name]
        for parameter, needs in asked:
            parameter.requires_grad_(needs)
    found: dict[str, Tensor] = {}
    for name, leaf in leaves.items():
        if leaf.grad is None:
            raise InputError(f"no gradient reached {name}: `backward` must run this model and loss.backward()")
        found[name] = leaf.grad
    return found
