"""Makers, as in `made_up`, of the tables that are about updates: subspaces, amplification, spectra."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_up import MODEL, TASK, Maker, Values, write

from analysis.kit.updates import EPSILONS, SIDES

CHANCE = 0.1  # phi of random directions, at every (i, j) that is read


def grids(folder: Path, name: str, pairs: Sequence[Mapping[str, np.ndarray]], large: int) -> None:
    """subspace/phi_<name>_<task>.csv of pairs of runs, by weight type the grid (i, j) of every layer, on the side A; on
    another side, and of a pair that has a run in common with one before, what must not be read."""
    rows = []
    listed = [(f"a{index}", f"b{index}", found) for index, found in enumerate(pairs)]
    listed.append(("a0", "c", {kind: np.full_like(grid, 0.99) for kind, grid in pairs[0].items()}))
    for one, other, found in listed:
        for (kind, layers), side in itertools.product(found.items(), ("A", "B")):
            for layer, grid in enumerate(layers):
                about = {"run_id": one, "other_run_id": other, "model": MODEL, "task": TASK, "weight_type": kind}
                about |= {"layer": layer, "side": side, "dim": 60}
                for i, phi in enumerate(grid if side == "A" else np.full_like(grid, 0.99), start=1):
                    rows.append(about | {"i": i} | {f"j{j}": value for j, value in enumerate(phi, start=1)})
    write(folder, f"subspace/phi_{name}_{TASK}.csv", rows)
    small = len(next(iter(pairs[0].values()))[0])
    about = {"dim": 60, "r_a": small, "r_b": large, "mean": CHANCE}
    chance = [about | {"i": i, "j": j} for i in range(1, small + 1) for j in range(1, large + 1)]
    write(folder, "subspace/phi_gaussian.csv", [*chance, *(row | {"dim": 61, "mean": 0.7} for row in chance)])


def ranks(i: int, j: int, layers: Sequence[float] = (-0.02, 0.02)) -> Maker:
    """Two ranks, 3 and 6, with a pair of runs a value: phi(i, j) beyond chance, around it by layer."""

    def make(folder: Path, values: Values) -> None:
        pairs = []
        for value in values:
            grid = np.full((len(layers), 3, 6), 0.5)
            grid[:, i - 1, j - 1] = CHANCE + value + np.array(layers)
            pairs.append({"q": grid, "v": grid})
        grids(folder, "r3_r6", pairs, 6)

    return make


def contrast(folder: Path, values: Values) -> None:
    """phi(1, 1) is so much above the share of directions 2 and 3, which is 0.2 beyond chance; the top direction lies in
    none of the others."""
    pairs = []
    for value in values:
        grid = np.full((2, 3, 6), 0.9)
        grid[:, 0, 0] = grid[:, 0, 2] = grid[:, 2, 0] = CHANCE + 0.2 + value
        grid[:, 2, 2] = CHANCE + (0.2 + value + 2 * 0.2) / 3  # of three directions
        pairs.append({"q": grid})
    grids(folder, "r3_r6", pairs, 6)


def seeds(of: str) -> Maker:
    """Two seeds of rank 10: phi(8, 8) beyond chance of all types, or how many of 10 directions q shares more than v."""

    def make(folder: Path, values: Values) -> None:
        pairs = []
        for value in values:
            q, v = np.full((2, 10, 10), 0.3), np.full((2, 10, 10), 0.3)
            if of == "few":
                q[:, 7, 7] = v[:, 7, 7] = CHANCE + value
            else:
                q[:, 9, 9] += value / 10
            pairs.append({"q": q, "v": v})
        grids(folder, "seeds_A", pairs, 10)

    return make


def amplified(column: str, over: str, r: int = 4) -> Maker:
    """One column is, by seed and at rank r, so many times another; layers lie around that. At other ranks it is as
    many times, unless r says which is read."""

    def make(folder: Path, values: Values) -> None:
        numbers = {"norm_delta_w": 5.0, "projection_delta_w": 5.0, "projection_w": 500.0, "projection_random": 5.0}
        rows = []
        for (seed, value), (layer, shift), kind in itertools.product(
            enumerate(values), enumerate((0.5, 1, 2)), ("q", "v")
        ):
            about = {"model": MODEL, "task": TASK, "weight_type": kind, "seed": seed, "layer": layer}
            for rank in (4, 64) if over == "projection_delta_w" else (4,):
                factor = value if rank == r else 7
                own = {"run_id": f"run{seed}{rank}", "r": rank, column: numbers[over] * factor * shift}
                rows.append(about | numbers | own)
        write(folder, "amplification/amplification.csv", rows)

    return make


def not_emphasised(folder: Path, values: Values) -> None:
    """Of the 4 that W's own directions have beyond random ones, such a share; layers lie around it."""
    rows = []
    for (seed, value), (layer, shift) in itertools.product(enumerate(values), enumerate((-0.01, 0.01))):
        about = {"model": MODEL, "task": TASK, "weight_type": "q", "r": 4, "run_id": f"run{seed}", "seed": seed}
        numbers = {"norm_delta_w": 5.0, "projection_w": 5.0, "projection_random": 1.0}
        rows.append(about | numbers | {"layer": layer, "projection_delta_w": 1 + 4 * (value + shift)})
    write(folder, "amplification/amplification.csv", rows)


def small_rank_amplifies(folder: Path, values: Values) -> None:
    """The factor over that of random directions is so many times larger at the smallest rank than at the largest;
    another rank must not be read."""
    about = {"model": MODEL, "task": TASK, "weight_type": "q", "layer": 0, "norm_delta_w": 3}
    numbers = {"projection_delta_w": 2, "projection_w": 9}
    rows = [
        about | numbers | {"run_id": f"run{seed}{r}", "seed": seed, "r": r, "projection_random": factor}
        for seed, value in enumerate(values)
        for r, factor in ((4, 10 * value), (8, 99), (64, 10))
    ]
    write(folder, "amplification/amplification.csv", rows)


def top_of_w(folder: Path, values: Values) -> None:
    """Above the 0.1 of random directions; rows of another rank, side or place in W must not be read."""
    about = {"model": MODEL, "task": TASK, "weight_type": "q", "side": "delta_w_right", "r": 4, "j": 4, "top": True}
    others = ({"r": 8, "j": 8}, {"j": 1}, {"top": False}, {"side": "delta_w_left"})
    rows = []
    for (seed, value), (layer, shift) in itertools.product(enumerate(values), enumerate((-0.02, 0.02))):
        where = {"run_id": f"run{seed}", "seed": seed, "layer": layer}
        rows.append(about | where | {"phi": 0.1 + value + shift})
        rows += [about | where | {"phi": 0.9} | other for other in others]
    write(folder, "w_vs_delta/phi.csv", rows)


def update_ranks(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """spectrum/ranks.csv: intruders of 0 where a row does not say so."""
    none = {f"{name}_{side}_{e}": 0.0 for name in ("intruders", "random") for side in SIDES for e in EPSILONS}
    about: dict[str, Any] = {"model": MODEL, "task": TASK, "label": "lora", "method": "r=8", "r": 8, "weight_type": "q"}
    about |= {"layer": 0, "effective_rank": 1}
    write(
        folder, "spectrum/ranks.csv", [about | none | dict(row) | {"run_id": f"run{i}"} for i, row in enumerate(rows)]
    )


def q_higher_rank(label: str) -> Maker:
    """Of one label; layers lie around the mean; the update of rank 1 must not be read."""

    def make(folder: Path, values: Values) -> None:
        other = {"lora": "full", "full": "lora"}[label]
        rows: list[dict[str, Any]] = [
            {"seed": seed, "layer": layer, "weight_type": kind, "effective_rank": 5 * shift * factor, "label": label}
            for seed, value in enumerate(values)
            for kind, factor in (("q", value), ("v", 1), ("k", 9))
            for layer, shift in enumerate((0.5, 1, 2))
        ]
        one = [row | {"r": 1, "method": "r=1", "effective_rank": 1} for row in rows]
        others = [row | {"label": other, "method": other, "effective_rank": 3} for row in rows]
        update_ranks([*rows, *one, *others], folder)

    return make


def intruders(folder: Path, values: Values) -> None:
    """Beyond those of random directions, LoRA's more than full's; on one side twice as many as on the other; more at
    another epsilon, and of a weight type that full has not trained."""
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        counts = {"intruders_right_0.5": 4 + 4 * value / 3, "intruders_left_0.5": 4 + 2 * value / 3}
        random = {"random_right_0.5": 3, "random_left_0.5": 3}
        full = dict.fromkeys(counts, 2) | dict.fromkeys(random, 1)
        rows.append({"seed": seed} | counts | random | {"intruders_right_0.6": 9})
        rows.append({"seed": seed} | counts | random | {"intruders_right_0.5": 9, "weight_type": "k"})
        rows.append({"seed": seed, "label": "full", "method": "full", "r": ""} | full)
    update_ranks(rows, folder)


def shares_with_full(folder: Path, values: Values) -> None:
    """Two layers; the entries of other k, sides and methods must not be read."""
    about = {"side": "right", "k": 8, "chance_mean": 0.1}
    others = ({"k": 1}, {"k": 16}, {"side": "left"})
    rows = []
    for (seed, value), (layer, shift) in itertools.product(enumerate(values), enumerate((-0.02, 0.02))):
        where = {"run_id": f"run{seed}", "layer": layer}
        rows.append(about | where | {"phi": 0.1 + value + shift})
        rows += [about | where | {"phi": 0.9} | other for other in others]
        rows.append(about | where | {"phi": 0.9, "run_id": f"run{len(values) + seed}"})
    write(folder, "spectrum/overlap.csv", rows)
    lora, full = ({"label": "lora", "method": "r=16"}, {"label": "full", "method": "full"})
    update_ranks([method | {"seed": seed} for method in (lora, full) for seed in range(len(values))], folder)


def truncation(folder: Path, values: Values) -> None:
    """The loss falls from 0.9 without the update to 0.5 with the whole; what else there is must not be read."""
    about = {"model": MODEL, "task": TASK, "method": "full", "split": "test", "metric": "loss"}
    others = (
        {"split": "validation"},
        {"metric": "accuracy"},
        {"method": "lora"},
        {"split": "update", "metric": "energy"},
    )
    rows = []
    for seed, value in enumerate(values):
        for k, score in ((384, 0.5), (0, 0.9), (8, 0.9 - 0.4 * value), (64, 0.7)):
            own = about | {"run_id": f"run{seed}", "seed": seed, "k": k, "value": score}
            rows += [own | {"value": 0.3} | other for other in others] + [own]
    write(folder, "truncation/truncation.csv", rows)
