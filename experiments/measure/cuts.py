"""The update that a run has learnt, cut to its best approximation of rank k, in the model itself (Eckart-Young)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments import methods
from lora.config import InputError
from lora.delta import svd_delta_w
from lora.layer import LoRALayer, Part, turned
from lora.model import lora_layers
from lora.targets import Place, typed_places


class Cut(NamedTuple):
    """One matrix of a model whose update can be cut. S (n,): its singular values, in falling order; n is its rank."""

    S: Tensor
    to: Callable[[int], None]  # puts W0 + the k largest terms of the update into the model; k = n: as it was trained

    def energy(self, k: int) -> float:
        """The squared Frobenius norm of what is kept at k."""
        return self.S[:k].double().square().sum().item()


class Cuts(NamedTuple):
    """All matrices of a model that are cut together."""

    matrices: list[Cut]

    @property
    def whole(self) -> int:
        """The smallest k at which nothing is cut away: the largest rank that an update here can have."""
        return max(len(cut.S) for cut in self.matrices)

    def to(self, k: int) -> None:
        """Cut every update to rank k."""
        for cut in self.matrices:
            cut.to(min(k, len(cut.S)))

    def energy(self, k: int) -> float:
        """What is kept at k of the sum over all matrices of ||delta_w||_F^2, from 0 to 1; 1 if there is no update."""
        total = sum(cut.energy(len(cut.S)) for cut in self.matrices)
        return sum(cut.energy(k) for cut in self.matrices) / total if total else 1.0


def load(model: nn.Module, method: Mapping[str, Any], heads: list[str], folder: Path, most: int) -> Cuts:
    """Brings a freshly loaded `model` into the state that a run of full fine-tuning or LoRA has stored in `folder`.

    Returns the cuts of its updates to any k up to `most`, or to none: of full fine-tuning those of every weight type,
    of LoRA those of its adapters. All else that was trained, as biases, norms, embeddings and the head, is kept as
    trained. Raises InputError as `experiments.methods.load`, and for a model whose weight types are not known.
    """
    weights = [_Weight(model, place) for place in _places(model)] if method["name"] == "full" else []
    before = [weight.read() for weight in weights]
    methods.load(model, method, heads, folder)
    cuts = [_of_weight(weight, w0, most) for weight, w0 in zip(weights, before, strict=True)]
    return Cuts(cuts or [_of_lora(layer, part) for _, layer in lora_layers(model) for part in layer.parts])


def _places(model: Any) -> list[Place]:
    places = typed_places(model)
    if not places:
        raise InputError(f"weight types are not known for a {model.config.model_type} model: no update is cut there")
    return places


class _Weight:
    """The matrix W (d, k) of a weight type, which may be some rows of a module's."""

    def __init__(self, model: nn.Module, place: Place) -> None:
        self.module, self.rows = model.get_submodule(place.module), place.part.rows

    def _weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return turned(self.module, weight.detach())

    def read(self) -> Tensor:
        """A copy, fp32."""
        return self._weight()[self.rows].to(torch.float32, copy=True)

    def write(self, W: Tensor) -> None:
        self._weight()[self.rows] = W.to(self._weight().dtype)


def _of_weight(weight: _Weight, w0: Tensor, most: int) -> Cut:
    trained = weight.read()
    U, S, Vh = torch.linalg.svd(trained - w0, full_matrices=False)
    left, right = (U[:, :most] * S[:most]).clone(), Vh[:most].clone()

    def to(k: int) -> None:
        weight.write(trained if k == len(S) else w0 + left[:, :k] @ right[:k])

    return Cut(S, to)


def _of_lora(layer: LoRALayer, part: Part) -> Cut:
    A, B = layer.lora_A[part.name].data, layer.lora_B[part.name].data
    trained = A.clone(), B.clone()
    U, S, Vh = (torch.from_numpy(side).to(A) for side in svd_delta_w(A.cpu(), B.cpu(), part.scaling))

    def to(k: int) -> None:
        if k == len(S):
            A.copy_(trained[0])
            B.copy_(trained[1])
        else:
            A.zero_()
            B.zero_()
            A[:k] = Vh[:k]
            B[:, :k] = U[:, :k] * S[:k] / part.scaling

    return Cut(S, to)
