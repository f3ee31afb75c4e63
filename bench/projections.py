"""Projections W for Section 7 at scale, one in memory at a time: drawn from a seed, or read from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.weights.delta_w import LowRank
from analysis.weights.pretrained import Weights
from analysis.weights.sites import Site
from lora.config import InputError

Single = NDArray[np.float32]
TYPES = ("q", "v")
HALVES = 2  # of a W, each drawn from a seed of its own
SMALL = 8  # the rank beside the large one, as in the paper's Figure 3
# Singular values as s_1 i^-0.45 fit what the paper's Table 7 says of W_q in layer 48 of GPT-3: of ||W||_F, its top 64
# directions have 0.61, its top 4 have 0.35 (here 0.60 and 0.37). Columns that shrink like this have them, nearly.
SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "flat": torch.ones,  # of independent Gaussians: the top ones are as close to each other as they can be
    "falling": lambda k: torch.arange(1, k + 1) ** -0.45,
}


def drawn(size: int, layers: int, spectrum: str, seed: int = 0) -> Iterator[tuple[Site, Single]]:
    """W (size, size) of TYPES in each layer, fp32, with one of SPECTRA. None is kept."""
    for index, site in enumerate(Site(str(layer), name) for layer in range(layers) for name in TYPES):
        yield site, _draw(size, spectrum, np.random.SeedSequence((seed, index)))


def _draw(size: int, spectrum: str, seed: np.random.SeedSequence) -> Single:
    W = torch.empty(size, size)
    with ThreadPoolExecutor(HALVES) as pool:  # torch draws with one thread, and lets go of Python's lock
        list(pool.map(lambda half, own: half.normal_(generator=_generator(own)), W.chunk(HALVES), seed.spawn(HALVES)))
    return W.mul_(SPECTRA[spectrum](size) / size**0.5).numpy()


def _generator(seed: np.random.SeedSequence) -> torch.Generator:
    return torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))


def sites(weights: Weights) -> list[Site]:
    """Where a model has TYPES. Raises InputError if it has none of them."""
    found = [site for site in weights.sites if site.weight_type in TYPES]
    if not found:
        raise InputError(f"{weights.source} has no projections of the types {' and '.join(TYPES)}")
    return found


def stored(weights: Weights, places: Sequence[Site]) -> Iterator[tuple[Site, Single]]:
    """W (d, k), fp32, at each of `places`, as `drawn`. Raises InputError if a file is damaged."""
    for site in places:
        yield site, weights.matrix(*weights.sites[site]).numpy()


def adapters(site: Site, shape: tuple[int, int], rank: int, seed: int = 0) -> dict[str, LowRank]:
    """Random updates B A of a site, drawn from a seed: two of rank `rank`, and one of rank SMALL, if that is less."""
    d, k = shape
    named = {f"r{min(SMALL, rank)}": min(SMALL, rank)} | {f"r{rank}": rank, f"r{rank}, seed 1": rank}

    def read(r: int, index: int) -> tuple[Tensor, Tensor]:
        generator = _generator(np.random.SeedSequence((seed, index, *map(ord, "".join(site)))))
        return torch.randn(r, k, generator=generator) / k**0.5, torch.randn(d, r, generator=generator) / d

    return {
        name: LowRank(site, f"layer {site.layer}", site.weight_type, shape, r, 1.0, partial(read, r, index))
        for index, (name, r) in enumerate(named.items())
    }
