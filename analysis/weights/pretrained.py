"""The weight matrices of a stored model, read one at a time: from a folder, the hub, or a packaged asset."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from analysis.weights.checkpoints import Checkpoint, Files
from analysis.weights.module_names import ARCHITECTURES, canonical, quantised, unique
from analysis.weights.sites import Site, sites_of
from experiments.models import skeleton
from lora.config import InputError
from lora.formats.keys import plain
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
        self._prefixes = {str(getattr(body, "base_model_prefix", "")), *ARCHITECTURES}
        self._canonical = unique({name: self.canonical(name) for name in self._modules})
        self._stored = self._by_canonical()
        self._names = {
            self._bare(name.removesuffix(".weight")): stored
            for name, stored in self._stored.items()
            if name.endswith(".weight")
        }
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

    def module(self, module: str) -> nn.Module | None:
        """A module that can be adapted, on the meta device; None if the pretrained body has none of this name."""
        return self._modules.get(self._bare(module))

    @property
    def linear(self) -> dict[str, str]:
        """Linear modules of the pretrained body whose weights are stored -> the stored name of the weight."""
        there = {name for name, module in self._modules.items() if not isinstance(module, nn.Embedding)}
        return {name: self._names[name] for name in self._modules if name in there and name in self._names}

    def matrix(self, module: str, weight_type: str) -> Tensor:
        """W (d, k), fp32: the rows of one weight type, or with `all` a whole module.

        Raises InputError if the model has no such matrix, or its file is missing, damaged or quantised.
        """
        return self.as_loaded(module, weight_type).float()

    def as_loaded(self, module: str, weight_type: str) -> Tensor:
        """`matrix` in the precision in which it is stored, or of `dtype`: mapped from the file where that can be."""
        bare = self._bare(module)
        self.shape(module, weight_type)
        name, whole = self._names.get(bare), self._modules[bare]
        if name is None:
            codes = [own for own in quantised(self.checkpoint.where) if f".{bare}." in f".{own}"]
            why = f"is quantised there ({codes[0]}), which is not read" if codes else "is damaged, or of another kind"
            raise InputError(f"{self.source} lacks the weight of {module}: it {why}")
        codes = quantised(own for own in self.checkpoint.where if own.startswith(name.removesuffix("weight")))
        if codes:
            raise InputError(
                f"{self.source}: {name} is quantised ({codes[0]}), which is not read: give the model in 16 or 32 bits"
            )
        stored = self.checkpoint.weight(name)
        if stored.shape != whole.weight.shape:
            told = f"{tuple(stored.shape)}, {self.checkpoint.dtype(name)}, not {tuple(whole.weight.shape)}"
            raise InputError(f"{self.source}: {name} is {told}: quantised or damaged weights cannot be read")
        place = self._places.get((bare, weight_type))
        rounded = stored if self.dtype is None else stored.to(self.dtype)
        return turned(whole, rounded)[place.rows if place else slice(None)]

    def stored_dtype(self, module: str) -> torch.dtype:
        """The precision in which a module of `sites` is stored."""
        return self.checkpoint.tensor(self._names[self._bare(module)]).dtype

    def canonical(self, name: str) -> str:
        """A name less what models and heads put before those of the body (`bert.encoder…`, `model.language_model…`)."""
        return canonical(name, self._prefixes)

    def parameter(self, name: str) -> Tensor | None:
        """A stored tensor by its name in this or in a larger model, rounded as `dtype` says; None if there is none.

        Raises InputError if its file is damaged, or it holds codes or NaN.
        """
        stored = self._stored.get(self.canonical(name))
        if stored is None:
            return None
        value = self.checkpoint.weight(stored)
        return value if self.dtype is None else value.to(self.dtype)

    @property
    def parameters(self) -> dict[str, str]:
        """The canonical name of every stored tensor -> its name in the file."""
        return dict(self._stored)

    def read_as_matrix(self) -> set[str]:
        """The stored names of the tensors that `sites` are in."""
        return {self._names[module] for module, _ in self.sites.values()}

    def _by_canonical(self) -> dict[str, str]:
        """Canonical name -> stored name. Raises InputError if two tensors have one name but for what is before it."""
        found: dict[str, str] = {}
        for stored, name in plain(self.checkpoint.where).items():
            own = self.canonical(name)
            if own in found and own.removesuffix(".weight") in self._canonical:
                raise InputError(f"{self.source} holds {own} twice, as {found[own]} and as {stored}: which one is it?")
            found[name if own in found else own] = stored
        return found

    def _bare(self, module: str) -> str:
        """The module's name in the body, where one module alone can be meant; else the name itself."""
        return module if module in self._modules else self._canonical.get(self.canonical(module), module)

    def _typed(self) -> list[_Place]:
        return [self._place(module, part.name, part.rows) for module, _, part in typed_places(self.body)]

    def _linear(self) -> list[_Place]:
        names = (name for name, module in self._modules.items() if not isinstance(module, nn.Embedding))
        return [self._place(name, name.rpartition(".")[2], slice(None)) for name in names if layer_of(name) is not None]

    def _place(self, module: str, weight_type: str, rows: slice | Tensor) -> _Place:
        base = self._modules[module]
        d, k = turned(base, base.weight.data)[rows].shape
        return _Place(module, layer_of(module), weight_type, rows, (d, k))
