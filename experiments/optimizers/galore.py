"""GaLore: Adam in the top r singular directions of each gradient (Zhao et al. 2024, arXiv 2403.03507, Algorithm 2).

    R = P^T G      N = Adam(R)      W <- W - lr * scale * P N

for G (m, n) with m <= n, and with R = G Q where the other side is the smaller one. P (m, r) are the top r left singular
vectors of G, taken anew every `refresh` steps; the moments, of R's shape, are kept when they change, as in the paper.
It leaves open which sign a direction has, on which these moments depend: here that of its predecessor, so that a
direction that stays keeps its moments. Weight decay is AdamW's, of W. Projected are the matrices of the linear layers
in the numbered layers; embeddings, biases, norms and heads have AdamW's own step. A matrix with fewer than r rows or
columns has all of its directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from experiments.layers import layers
from experiments.method_settings import GaLore as Settings
from experiments.optimizers.adamw import AdamW
from lora.config import InputError


class GaLore(AdamW):
    """AdamW that projects the gradients of the groups that have the settings of `method_settings.GaLore`."""

    def update(  # noqa: D102
        self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], settings: Mapping[str, Any]
    ) -> None:
        if "r" not in settings:
            super().update(parameter, gradient, state, settings)
            return
        gradient = gradient.float()
        W, G = (parameter.T, gradient.T) if gradient.shape[0] > gradient.shape[1] else (parameter, gradient)
        done = state.get("done")
        if done is None:
            done = int(state.get("step", 0))
        state["done"] = done + 1  # counted here too: a step that is on a GPU would be waited for
        if done % settings["refresh"] == 0:
            state["P"] = directions(G, settings["r"], state.get("P"))
        P, lr = state["P"], settings["lr"]
        R = P.T @ G
        N = torch.zeros_like(R)
        super().update(N, R, state, {**settings, "weight_decay": 0.0})  # N is now -lr Adam(R)
        W.mul_(1 - lr * settings["weight_decay"]).add_((P @ N).to(W.dtype), alpha=settings["scale"])


def directions(G: Tensor, r: int, before: Tensor | None = None) -> Tensor:
    """The top r left singular vectors (m, r) of G (m, n), m <= n, in fp32, all m if r is larger. Each has the sign that
    is nearer to the same column of `before`.

    They are the eigenvectors of G G^T, a fifth of the time of an SVD: directions whose singular values are below about
    1e-3 of the largest are any within their span.
    """
    gram = G @ G.T
    if not gram.isfinite().all():  # eigh would end the program; the next loss is not finite, which ends the run
        gram = torch.eye(len(G), device=G.device)
    found: Tensor = torch.linalg.eigh(gram).eigenvectors[:, -r:].flip(1)
    return found if before is None else found * torch.where((found * before).sum(0) < 0, -1.0, 1.0)


def split(model: nn.Module, groups: list[dict[str, Any]], method: Settings) -> list[dict[str, Any]]:
    """The groups, each divided in what is projected, with these settings, and what is not.

    Raises InputError for an r that is larger than every matrix.
    """
    matrices = [
        cast(nn.Parameter, module.weight)
        for layer in layers(model)
        for module in layer.modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    most = max((min(matrix.shape) for matrix in matrices), default=0)
    if method.r > most:
        raise InputError(f"method.r = {method.r}: the largest matrix that GaLore projects has {most} directions")
    projected = {id(matrix) for matrix in matrices}
    found = []
    for group in groups:
        inside, outside = ([p for p in group["params"] if (id(p) in projected) is side] for side in (True, False))
        found += [group | {"params": outside}] if outside else []
        found += [group | {"params": inside, **asdict(method)}] if inside else []
    return found
