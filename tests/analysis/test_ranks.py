"""Which singular triplets are kept, against all choices of ranks there are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.adapters.ranks import Spectrum, Wish, choose
from lora.config import InputError


def spectrum(values: list[float], shape: tuple[int, int] = (6, 4)) -> Spectrum:
    S = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    return Spectrum(S, shape, float(np.square(S).sum()))


def held(spectra: list[Spectrum], ranks: tuple[int, ...] | list[int]) -> float:
    return sum(float(np.square(own.S[:rank]).sum()) for own, rank in zip(spectra, ranks, strict=True))


def cost(spectra: list[Spectrum], ranks: tuple[int, ...] | list[int]) -> int:
    return sum(rank * sum(own.shape) for own, rank in zip(spectra, ranks, strict=True))


VALUES = st.lists(st.floats(0.1, 9), min_size=1, max_size=3)
SHAPES = st.sampled_from([(6, 4), (9, 3), (40, 40)])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(VALUES, SHAPES), min_size=1, max_size=4), st.floats(0.05, 1))
def test_no_ranks_hold_more_than_those_of_an_energy_with_as_many_parameters(
    drawn: list[tuple[list[float], tuple[int, int]]], energy: float
) -> None:
    spectra = [spectrum(*own) for own in drawn]
    ranks = choose(spectra, Wish(energy=energy))
    found, spent = held(spectra, ranks), cost(spectra, ranks)
    assert found >= energy * sum(own.energy for own in spectra) * (1 - 1e-9)
    every = itertools.product(*(range(len(own.S) + 1) for own in spectra))
    assert found >= max(held(spectra, other) for other in every if cost(spectra, other) <= spent) * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4), st.integers(10, 120))
def test_of_one_shape_no_ranks_hold_more_than_those_of_a_number_of_parameters(
    drawn: list[list[float]], params: int
) -> None:
    spectra = [spectrum(own) for own in drawn]
    params = min(params, cost(spectra, [len(own.S) for own in spectra]))
    ranks = choose(spectra, Wish(params=params))
    assert cost(spectra, ranks) <= params
    every = itertools.product(*(range(len(own.S) + 1) for own in spectra))
    best = max(held(spectra, other) for other in every if cost(spectra, other) <= params)
    assert held(spectra, ranks) == pytest.approx(best)


def test_a_cheaper_triplet_takes_what_a_dearer_one_leaves() -> None:
    spectra = [spectrum([10, 9], (50, 50)), spectrum([1], (3, 2))]
    assert choose(spectra, Wish(params=106)) == [1, 1]


def test_one_rank_is_at_most_that_of_each() -> None:
    assert choose([spectrum([3, 2, 1]), spectrum([5])], Wish(rank=2)) == [2, 1]


def test_what_is_rounding_is_no_triplet() -> None:
    assert choose([spectrum([2, 1, 1e-14])], Wish(energy=1.0)) == [2]


def test_energy_that_was_not_computed_is_said() -> None:
    partly = Spectrum(np.array([1.0]), (6, 4), 4.0)
    with pytest.raises(InputError, match=r"--energy 0.5: .* were computed, 1 of a matrix .* hold 0.250"):
        choose([partly], Wish(energy=0.5))
    assert choose([partly], Wish(energy=0.25)) == [1]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(rank=0), "--rank 0: the largest rank there is 3: choose one from 1 to 3"),
        (Wish(rank=4), "--rank 4: the largest rank there is 3"),
        (Wish(params=9), "--params 9: one direction of one module takes 10, and all that there are take 30"),
        (Wish(params=31), "--params 31: .* all that there are take 30"),
    ],
)
def test_wishes_beyond_what_there_is(wish: Wish, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose([spectrum([3, 2, 1])], wish)


def test_updates_that_are_zero_have_nothing_to_keep() -> None:
    with pytest.raises(InputError, match="every update is zero"):
        choose([spectrum([0, 0])], Wish(rank=1))
