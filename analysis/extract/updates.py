"""The updates of all linear matrices of a checkpoint, one matrix in memory at a time, as low-rank factors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from analysis.adapters.made import factors
from analysis.adapters.ranks import Spectrum, Wish, check_rank, choose
from analysis.extract.delta import delta
from analysis.maths.svd import SVD
from analysis.weights.pairs import Pair
from lora.config import InputError
from lora.stored import Target
from lora.targets import WHOLE, layer_of


class Extracted(NamedTuple):
    """One entry an update: where it is, A and B of all the triplets that were computed, fp32, the largest first, its
    spectrum, and the rank that it gets."""

    targets: list[Target]
    factors: list[tuple[Tensor, Tensor]]
    spectra: list[Spectrum]
    ranks: list[int]
    unchanged: list[str]  # modules whose update is zero

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the updates."""
        return [spectrum.shape for spectrum in self.spectra]

    def adapters(self, dtype: torch.dtype) -> dict[Target, tuple[Tensor, Tensor]]:
        """A and B of every update of rank 1 or more."""
        found = {}
        for target, (A, B), rank in zip(self.targets, self.factors, self.ranks, strict=True):
            if rank:
                found[target._replace(r=rank)] = A[:rank].to(dtype), B[:, :rank].to(dtype)
        return found


def extract_all(
    pair: Pair,
    modules: Mapping[str, str],
    wish: Wish,
    most: int,
    tolerance: float,
    watched: Callable[[Sequence[str]], Iterable[str]] = lambda found: found,
) -> Extracted:
    """The updates of `modules` (name in the base model's body -> name in the adapter's model) as `wish` says.

    Of each matrix the triplets that the wish may need are computed, `most` at most where it is no rank, and kept until
    ranks are chosen. `watched` goes over the modules. Raises InputError if all updates are zero, and as `delta` and
    `choose`.
    """
    shapes = {module: pair.base.shape(module, WHOLE) for module in modules}
    if wish.rank is not None and shapes:
        check_rank(wish.rank, max(map(min, shapes.values())))
    targets, kept, spectra, unchanged = list[Target](), list[tuple[Tensor, Tensor]](), list[Spectrum](), list[str]()
    for module in watched(list(modules)):
        name, shape = modules[module], shapes[module]
        top, energy, energy_base = _of_one(pair, module, _needed(wish, shape, most), tolerance)
        if not energy:
            unchanged.append(name)
            continue
        types = [own for own, rows in pair.base.slices(module).items() if rows == slice(None)]
        target = Target(name, (types or [WHOLE])[0], layer_of(name), min(shape), 1.0, shape, energy_base**0.5)
        targets.append(target)
        A, B = factors(top, len(top.S))
        kept.append((A.float(), B.float()))
        spectra.append(Spectrum(top.S, shape, energy))
    if not targets:
        raise InputError(
            f"{pair.tuned.source} has the linear matrices of {pair.base.source}, number for number: there is no update "
            "to extract"
        )
    return Extracted(targets, kept, spectra, choose(spectra, wish), unchanged)


def _of_one(pair: Pair, module: str, rank: int, tolerance: float) -> tuple[SVD, float, float]:
    """The top triplets of one matrix, and the squared norms of it and of W; it is let go of before the next is read."""
    found = delta(pair, module)
    with threadpool_limits(1, user_api="blas"):  # numpy's, of small problems: torch has threads of its own for W
        return found.top(rank, tolerance), found.energy, found.energy_base


def _needed(wish: Wish, shape: tuple[int, int], most: int) -> int:
    """How many triplets of a matrix of this shape may be kept."""
    if wish.rank is not None:
        return min(wish.rank, *shape)
    by_size = max(wish.params // sum(shape), 1) if wish.params is not None else most
    return min(most, by_size, *shape)
