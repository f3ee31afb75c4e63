"""GaLore against numpy, the authors' package, and AdamW in a turned basis."""

from typing import Any

import galore_torch
import numpy as np
import pytest
import torch
from networks import BLOCK, KINDS, adapted
from steps import GALORE, gradients, stepped
from torch import Tensor, nn

from experiments import methods
from experiments.method_settings import GaLore as Settings
from experiments.models import head_modules
from experiments.optimizers import galore


def numpy_galore(W: Tensor, found: list[Tensor], r: int, refresh: int, scale: float, lr: float, decay: float) -> Any:
    """Algorithm 2 of the paper, in fp64, with the signs of directions as their predecessors have them."""
    weight, P = W.double().numpy().copy(), None
    for step, gradient in enumerate(found):
        G = gradient.double().numpy()
        tall = G.shape[0] > G.shape[1]
        G = G.T if tall else G
        if step % refresh == 0:
            U = np.linalg.svd(G, full_matrices=False)[0][:, :r]
            P = U if P is None else U * np.where(np.diag(U.T @ P) < 0, -1, 1)
        R = P.T @ G
        if step == 0:
            M, V = np.zeros_like(R), np.zeros_like(R)
        M, V = 0.9 * M + 0.1 * R, 0.999 * V + 0.001 * R**2
        N = (M / (1 - 0.9 ** (step + 1))) / (np.sqrt(V / (1 - 0.999 ** (step + 1))) + 1e-8)
        change = P @ N
        weight -= lr * decay * weight + lr * scale * (change.T if tall else change)
    return weight


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (6, 6)])
def test_galore_is_the_papers_algorithm(shape: tuple[int, int]) -> None:
    W = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    found = gradients(8, *shape)
    expected = numpy_galore(W.detach(), found, r=3, refresh=3, scale=0.5, lr=1e-2, decay=0.1)
    group = {"params": [W], "lr": 1e-2, "r": 3, "refresh": 3, "scale": 0.5}
    stepped(galore.GaLore([group], weight_decay=0.1), W, found)
    np.testing.assert_allclose(W.detach().numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_galore_is_that_of_the_authors_until_signs_matter(shape: tuple[int, int]) -> None:
    theirs = galore_torch.GaLoreAdamW
    ours, other = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    found = gradients(8, *shape)
    group = {"params": [ours], "lr": 1e-2, "r": 3, "refresh": 8, "scale": 0.5}
    stepped(galore.GaLore([group], weight_decay=0.0), ours, found)
    group = {"params": [other], "rank": 3, "update_proj_gap": 8, "scale": 0.5, "proj_type": "std"}
    stepped(theirs([group], lr=1e-2, eps=1e-12, no_deprecation_warning=True), other, found)
    torch.testing.assert_close(ours, other, atol=2e-6, rtol=0)


def test_with_all_directions_galore_is_adamw_in_a_turned_basis() -> None:
    W = nn.Parameter(torch.ones(5, 7))
    found = gradients(6, 5, 7)
    P = galore.directions(found[0], 5)
    torch.testing.assert_close(P.T @ P, torch.eye(5))
    turned = nn.Parameter(P.T @ W.detach())
    group = {"params": [W], "lr": 1e-2, "r": 5, "refresh": 100, "scale": 1.0}
    stepped(galore.GaLore([group], weight_decay=0.1), W, found)
    stepped(torch.optim.AdamW([turned], lr=1e-2, weight_decay=0.1), turned, [P.T @ gradient for gradient in found])
    torch.testing.assert_close(W.detach(), P @ turned.detach(), atol=1e-6, rtol=0)


def test_galores_update_has_at_most_r_directions_for_each_subspace() -> None:
    W = nn.Parameter(torch.zeros(20, 30))
    group = {"params": [W], "lr": 1e-2, "r": 2, "refresh": 4, "scale": 1.0}
    optimizer = galore.GaLore([group], weight_decay=0.0)
    found = gradients(12, 20, 30)
    for subspaces in (1, 2, 3):
        stepped(optimizer, W, found[4 * subspaces - 4 : 4 * subspaces])
        S = torch.linalg.svdvals(W.detach())
        assert int((1e-5 * S[0] < S).sum()) == 2 * subspaces
    state = optimizer.state[W]
    assert state["exp_avg"].shape == state["exp_avg_sq"].shape == (2, 30)


def test_a_gradient_that_is_not_finite_ends_no_program() -> None:
    W = nn.Parameter(torch.zeros(4, 4))
    group = {"params": [W], "lr": 1e-2, "r": 2, "refresh": 1, "scale": 1.0}
    stepped(galore.GaLore([group], weight_decay=0.0), W, [torch.full((4, 4), torch.nan)])
    assert W.isnan().any()


@pytest.mark.parametrize("kind", KINDS)
def test_galore_projects_the_matrices_of_the_layers_and_nothing_else(kind: str) -> None:
    model = adapted(kind, GALORE)
    groups = methods.parameter_groups(model, GALORE, head_modules(model), 1e-3, head_lr=1e-2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = galore.split(model, groups, Settings(r=GALORE["r"], refresh=GALORE["refresh"], scale=GALORE["scale"]))
    assert sorted(id(p) for group in found for p in group["params"]) == sorted(names)
    for group in found:
        for parameter in group["params"]:
            name = names[id(parameter)]
            in_layers = name.startswith(BLOCK[kind].partition("{")[0]) and parameter.ndim == 2
            assert ("r" in group) == in_layers, name
            head = not name.startswith(f"{model.base_model_prefix}.")
            assert group["lr"] == (1e-2 if head else 1e-3), name
