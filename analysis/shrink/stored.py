"""A stored adapter whose updates are cut: read update by update, whatever library has written it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from analysis.adapters.made import PEFT, Made, factors, refuse_tied, saved_modules
from analysis.adapters.ranks import Spectrum
from analysis.maths.svd import SVD, svd_delta_w
from analysis.weights import sources
from lora.errors import InputError
from lora.formats.peft_config import read_peft_config
from lora.stored import Adapter, Target
from lora.tensor_files import PLAIN
from lora.variants import PLAIN as ORDINARY
from lora.variants import Start, chosen


class Stored(NamedTuple):
    """An adapter of plain LoRA: its file, and the options of its adapter_config.json, if it is peft's."""

    file: Adapter
    options: dict[str, Any]
    is_peft: bool

    @property
    def targets(self) -> list[Target]:
        """Where its updates are."""
        return list(self.file.pieces)

    def svd(self, target: Target) -> SVD:
        """Of scaling * B A, from its factors. Raises InputError if the file is damaged or holds NaN."""
        A, B = self.file.tensors(target)
        return svd_delta_w(A, B, target.scaling)

    def spectrum(self, target: Target) -> Spectrum:
        """The singular values of one update. Raises InputError as `svd`."""
        S = self.svd(target).S
        return Spectrum(S, target.shape, float(np.square(S).sum()))

    def cut(self, ranks: Sequence[int], layout: str) -> Made:
        """The adapter with the updates cut to these ranks; an update that keeps its own rank stays as it is stored.

        Raises InputError if the file is damaged, or what was trained beside the updates cannot be stored in `layout`.
        """
        adapters = {}
        for target, rank in zip(self.targets, ranks, strict=True):
            if rank == target.r:
                A, B = self.file.tensors(target)
            elif rank:
                A, B = factors(self.svd(target), rank, target.scaling)
            else:
                continue
            own = [getattr(torch, self.file.file.dtypes[piece.name]) for piece in self.file.pieces[target]]
            adapters[target._replace(r=rank)] = A.to(own[0]), B.to(own[1])
        parameters = self.file.parameters()
        if layout != PEFT:
            parameters = {name: own for name, own in parameters.items() if own.is_floating_point()}
        embeddings = [target.module for target, (A, _) in self.file.pieces.items() if "lora_embedding_" in A.name]
        options = self.options
        if layout == PEFT and not self.is_peft:
            refuse_tied(name for name in parameters if name not in self.file.apart)
            options = saved_modules(parameters, [target.module for target in adapters])
        return Made(adapters, parameters, sorted(self.file.apart), frozenset(embeddings), options)

    def left(self, layout: str) -> list[str]:
        """What is stored and not written again, each with its name, and what else a reader must know."""
        names = [f"{name} is left out: {reason}" for name, reason in self.file.unused.items()]
        counts = [] if layout == PEFT else [own for own in self.file.others.values() if self._dtype(own) not in PLAIN]
        names += [f"{name} is left out: this suite's format holds no whole numbers" for name in counts]
        names += [f"{name} of its file is left out: it is no tensor" for name in self.file.file.left]
        return [*self.file.notes, *names]

    def _dtype(self, name: str) -> str:
        return self.file.file.dtypes[name]


def read(source: sources.Source) -> Stored:
    """The adapter of a source. Raises InputError if it holds whole weights, or if its updates cannot be cut: those of
    DoRA, and those that start from loftq."""
    adapter, options = source.stored, dict[str, Any]()
    if not isinstance(adapter, Adapter):
        raise InputError(f"{source.name} holds whole weights, no adapter: use python -m analysis.extract on it")
    if chosen(Start, adapter.init).remakes:
        raise InputError(
            f"{source.name} started from {adapter.init}: its base weights were quantised for its own rank, and "
            "another rank would give others. It cannot be shrunk"
        )
    if any(target.variant != ORDINARY for target in adapter.pieces):
        raise InputError(
            f"{source.name} is DoRA: its magnitudes scale the rows of W too, so that no lower rank of B A is its best "
            "approximation. Merge it into its base model and use python -m analysis.extract"
        )
    if source.library == sources.PEFT:
        options = read_peft_config(adapter.file.path.parent).options
    return Stored(adapter, options, source.library == sources.PEFT)
