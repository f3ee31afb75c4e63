"""The weight matrices of a stored model, read one at a time: from a folder, the hub, or a packaged asset."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from analysis.checkpoints import Checkpoint, Files
from analysis.comparison import Site, sites_of
from experiments.models import skeleton
from lora.config import InputError
from lora.layer import adaptable, turned
from lora.targets import WHOLE, layer_of, typed_places
from lora.tensor_files import TensorFile


class _Place(NamedTuple):
    """A weight type of a module of the pretrained body: which rows of its turned weight, and their (d, k)."""

    module: str
    layer: int | None
    weight_type: str
    rows: slice | Tensor
    shape: tuple[int, int]


class Weights:
    """The weight matrices W (d, k), with y = W x, of a model; tensors are read when they are asked for.

    `sites` has the matrices of every weight type; for a model whose weight types are not known, those of its layers'
    linear modules, each named by the end of its module's name. Modules are named as in the pretrained body; `matrix`
    takes them with the prefix that a task head gives them too. `dtype`: what the weights are rounded to, as a model is
    that is loaded in this precision; None leaves them as stored.
    """

    def __init__(self, body: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
        self.body, self.checkpoint, self.dtype = body, checkpoint, dtype
        self.source = checkpoint.source
        self._modules = {name: module for name, module in body.named_modules() if adaptable(module)}
        names = ((name.removesuffix(".weight"), name) for name in checkpoint.where if name.endswith(".weight"))
        self._names = {self._bare(module): name for module, name in names}
        places = self._typed() or self._linear()
        self._places = {(place.module, place.weight_type): place for place in places}
        self._by_site = dict(zip(sites_of(places), places, strict=True))

    @classmethod
    def open(cls, source: str, dtype: torch.dtype | None = None) -> Weights:
        """A model's folder, hub id or `asset:<name>`.

        Raises InputError if it cannot be found, has no config or no weights, or is of an architecture unknown to
        transformers.
        """
        files = Files(source)
        config = files.find("config.json")
        if config is None:
            raise files.absent("is no model: it has no config.json")
        return cls(skeleton(str(config.parent)), Checkpoint.search(files), dtype)

    def rounded(self, dtype: torch.dtype | None) -> Weights:
        """The same weights, rounded to `dtype`."""
        return Weights(self.body, self.checkpoint, dtype)

    def of(self, file: TensorFile) -> Weights:
        """The same model with the weights of another file, which may lack some: `sites` has those that it has."""
        return Weights(self.body, Checkpoint.of_file(file))

    @property
    def sites(self) -> dict[Site, tuple[str, str]]:
        """Site -> (module, weight_type) of every matrix that is stored, in the model's order."""
        there = {site: place for site, place in self._by_site.items() if place.module in self._names}
        return {site: (place.module, place.weight_type) for site, place in there.items()}

    def slices(self, module: str) -> dict[str, slice | Tensor]:
        """The weight types of a module and, if it is a fused projection, the rows of each."""
        bare = self._bare(module)
        return {place.weight_type: place.rows for place in self._places.values() if place.module == bare}

    def shape(self, module: str, weight_type: str) -> tuple[int, int]:
        """(d, k) of `matrix`, from the config alone. Raises InputError if the model has no such matrix."""
        place = self._places.get((self._bare(module), weight_type))
        if place:
            return place.shape
        if weight_type == WHOLE and self.has(module):
            whole = self._modules[self._bare(module)]
            d, k = turned(whole, whole.weight).shape
            return d, k
        raise InputError(f"{self.source} has no weight type {weight_type!r} in {module}: is it the right base model?")

    def has(self, module: str) -> bool:
        """Whether a module, with or without a prefix, is a matrix of the pretrained body."""
        return self._bare(module) in self._modules

    def matrix(self, module: str, weight_type: str) -> Tensor:
        """W (d, k), fp32: the rows of one weight type, or with `all` a whole module.

        Raises InputError if the model has no such matrix, or its file is missing, damaged or quantised.
        """
        bare = self._bare(module)
        self.shape(module, weight_type)
        name, whole = self._names.get(bare), self._modules[bare]
        if name is None:
            raise InputError(f"{self.source} lacks the weight of {module}: it is damaged, or of another architecture")
        stored = self.checkpoint.tensor(name)
        if stored.shape != whole.weight.shape or not stored.is_floating_point():
            raise InputError(
                f"{self.source}: {name} is {tuple(stored.shape)}, {str(stored.dtype).removeprefix('torch.')}, not "
                f"{tuple(whole.weight.shape)} in floating point: quantised or damaged weights cannot be read"
            )
        place = self._places.get((bare, weight_type))
        rounded = stored if self.dtype is None else stored.to(self.dtype)
        return turned(whole, rounded.float())[place.rows if place else slice(None)]

    def stored_dtype(self, module: str) -> torch.dtype:
        """The precision in which a module of `sites` is stored."""
        return self.checkpoint.tensor(self._names[self._bare(module)]).dtype

    def _bare(self, module: str) -> str:
        """The module's name in the body: less what stands before it (`bert.encoder…`, `model.layers…`)."""
        parts = module.split(".")
        endings = (".".join(parts[first:]) for first in range(len(parts)))
        return next((ending for ending in endings if ending in self._modules), module)

    def _typed(self) -> list[_Place]:
        return [self._place(module, part.name, part.rows) for module, _, part in typed_places(self.body)]

    def _linear(self) -> list[_Place]:
        names = (name for name, module in self._modules.items() if not isinstance(module, nn.Embedding))
        return [self._place(name, name.rpartition(".")[2], slice(None)) for name in names if layer_of(name) is not None]

    def _place(self, module: str, weight_type: str, rows: slice | Tensor) -> _Place:
        base = self._modules[module]
        d, k = turned(base, base.weight.data)[rows].shape
        return _Place(module, layer_of(module), weight_type, rows, (d, k))
