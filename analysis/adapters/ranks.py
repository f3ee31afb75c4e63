"""How many singular triplets of each update are kept: one rank for all, a share of the energy, or so many parameters.

Energy is the squared Frobenius norm. By Eckart and Young the k largest triplets are the best approximation of rank k of
one matrix; of several matrices together it is the largest triplets of all of them. Where shapes differ, a triplet of a
(d, k) matrix costs d + k parameters, and the order is that of energy per parameter: what is kept is then the most
energy that so many parameters can hold, but for what the last triplet leaves over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.maths.svd import Array
from lora.config import InputError

NOTHING = 1e-12  # of the largest singular value of an update: what is below is rounding
ROUNDING = 1e-6  # of the energy: what singular values computed in fp32 may lack of a whole


class Wish(NamedTuple):
    """What is asked for: one of the three."""

    rank: int | None = None
    energy: float | None = None
    params: int | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Wish:
        """From the options of `add_options`. Raises InputError for a share that is none."""
        if options.energy is not None and not 0 < options.energy <= 1:
            raise InputError(f"--energy {options.energy:g}: it is a share, above 0 and at most 1")
        return cls(options.rank, options.energy, options.params)

    def __str__(self) -> str:
        name, value = next((name, value) for name, value in self._asdict().items() if value is not None)
        return f"--{name} {value}"


class Spectrum(NamedTuple):
    """S (n,): the singular values of an update that are known, in falling order; `shape`: (d, k); `energy`: of the
    whole update, which may have more than n."""

    S: Array
    shape: tuple[int, int]
    energy: float

    @property
    def cost(self) -> int:
        """Parameters of one triplet."""
        return sum(self.shape)

    def share(self, rank: int) -> float:
        """The share of the energy that the first `rank` triplets hold; 1 for an update that is zero."""
        return min(float(np.square(self.S[:rank]).sum() / self.energy), 1.0) if self.energy else 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """--rank, --energy and --params, of which one must be given."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--rank", type=int, help="this rank in every module")
    group.add_argument("--energy", type=float, metavar="SHARE", help="this share of the squared norm of all updates")
    group.add_argument("--params", type=int, metavar="N", help="at most so many parameters in all")


def check_rank(rank: int, largest: int) -> None:
    """Raises InputError, with what there is, for a rank that no update has."""
    if not 1 <= rank <= largest:
        raise InputError(f"--rank {rank}: the largest rank there is {largest}: choose one from 1 to {largest}")


def choose(spectra: Sequence[Spectrum], wish: Wish) -> list[int]:
    """The rank of each update, 0 for one that gets none.

    Raises InputError if all updates are zero, or for a wish beyond what there is or too small for one triplet.
    """
    if not any(spectrum.energy for spectrum in spectra):
        raise InputError("every update is zero: there is nothing to approximate (was it trained?)")
    if wish.rank is not None:
        check_rank(wish.rank, max(len(spectrum.S) for spectrum in spectra))
        return [min(wish.rank, len(spectrum.S)) for spectrum in spectra]
    least, all_there_is = min(own.cost for own in spectra), sum(own.cost * len(own.S) for own in spectra)
    if wish.params is not None and not least <= wish.params <= all_there_is:
        raise InputError(
            f"--params {wish.params}: one direction of one module takes {least}, and all that there are take "
            f"{all_there_is}: choose a number between"
        )
    ranks, kept = _greedy(spectra, wish)
    whole = sum(spectrum.energy for spectrum in spectra)
    if wish.energy is not None and kept < wish.energy * whole * (1 - ROUNDING):
        raise InputError(
            f"--energy {wish.energy:g}: the directions that were computed, {max(len(own.S) for own in spectra)} of a "
            f"matrix at most, hold {kept / whole:.3f}: ask for less, or for more of them (--most)"
        )
    return ranks


def _greedy(spectra: Sequence[Spectrum], wish: Wish) -> tuple[list[int], float]:
    """Triplets in the order of energy per parameter, until the wish is met; the ranks, and the energy that they hold.

    An update whose next triplet does not fit is closed; cheaper ones of others may still fit.
    """
    gains = [np.where(NOTHING * own.S.max(initial=0) < own.S, np.square(own.S), 0) for own in spectra]
    worth = np.concatenate([gain / own.cost for gain, own in zip(gains, spectra, strict=True)])
    owners = np.repeat(np.arange(len(spectra)), [len(gain) for gain in gains])
    ranks, closed, kept, spent = [0] * len(spectra), set[int](), 0.0, 0
    needed = (wish.energy or 2) * sum(own.energy for own in spectra) * (1 - NOTHING)
    for index in np.argsort(-worth, kind="stable"):
        own, cost = int(owners[index]), spectra[owners[index]].cost
        if worth[index] <= 0 or kept >= needed:
            break
        if own in closed or (wish.params is not None and spent + cost > wish.params):
            closed.add(own)
            continue
        kept += float(gains[own][ranks[own]])
        ranks[own] += 1
        spent += cost
    return ranks, kept
