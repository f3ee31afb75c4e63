"""Makers, as in `made_up`, of the tables that are about updates: subspaces, amplification, spectra."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made_up import MODEL, TASK, Maker, Values, write

from analysis.studies.spectrum.measures import EPSILONS, SIDES


def phi_entries(folder: Path, comparison: str, entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """subspace/table.csv: for each weight type the entries of each layer, and on other sides what must not be read."""
    chance = {"gaussian_mean": 0.0, "gaussian_low": 0.0, "gaussian_high": 0.0}
    rows = [
        {"task": TASK, "comparison": comparison, "side": side, "weight_type": weight_type, "layer": layer}
        | {"phi": 0.99} | chance | dict(entry) | ({} if side == "A" else {"phi": 0.99})
        for side in ("A", "delta_w_left")
        for weight_type, found in entries.items()
        for layer, entry in enumerate(found)
    ]  # fmt: skip
    write(folder, "subspace/table.csv", rows)


def top(chance: float) -> Maker:
    """phi(1, 1) of the two ranks; `chance` is the upper end of its interval."""

    def make(folder: Path, values: Values) -> None:
        entries = [{"i": 1, "j": 1, "phi": value + chance, "gaussian_high": chance} for value in values]
        phi_entries(folder, "r2_r4", {"q": entries})

    return make


def others(folder: Path, values: Values) -> None:
    """Ranks 3 and 6 of 60 dimensions: by chance 2 / 60 of two directions lie in two others."""
    r, large, dim = 3, 6, 60
    phi_entries(folder, f"r{r}_r{large}", {"q": [{"i": r, "j": large, "gaussian_mean": large / dim} for _ in values]})
    rows = []
    for layer, value in enumerate(values):
        overlap = np.zeros((r, r))
        overlap[0, 0] = 0.7
        overlap[1, 2] = (r - 1) * (value + (r - 1) / dim)  # of all pairs of directions but the top ones
        cumulative = overlap.cumsum(axis=0).cumsum(axis=1)
        for i in range(1, r + 1):
            phi = {f"j{j}": cumulative[i - 1, j - 1] / min(i, j) for j in range(1, r + 1)}
            rows.append({"task": TASK, "weight_type": "q", "layer": layer, "side": "A", "i": i} | phi)
    write(folder, f"subspace/phi_r{r}_r{large}_{TASK}.csv", rows)


def seeds_share(folder: Path, values: Values) -> None:
    rows = [[{"i": i, "j": i, "phi": value + 0.1, "gaussian_high": 0.1} for value in values] for i in (1, 8, 64)]
    rows[0] = [row | {"phi": 0.9} for row in rows[0]]
    _several(folder, {"q": rows})


def q_shares_more(folder: Path, values: Values) -> None:
    q = [[{"i": i, "j": i, "phi": (3 + value) / i + 0.1, "gaussian_mean": 0.1} for value in values] for i in (1, 8, 64)]
    v = [[{"i": i, "j": i, "phi": 3 / i + 0.1, "gaussian_mean": 0.1} for _ in values] for i in (1, 8, 64)]
    _several(folder, {"q": q, "v": v})


def _several(folder: Path, grids: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> None:
    """Entries of seeds at three (i, j), one a list; phi_entries numbers the layers of each."""
    parts = []
    for index in range(3):
        phi_entries(folder, "seeds", {weight_type: found[index] for weight_type, found in grids.items()})
        parts.append(pd.read_csv(folder / "subspace/table.csv"))
    pd.concat(parts).to_csv(folder / "subspace/table.csv", index=False)


def amplified(column: str, over: str) -> Maker:
    """One column is, by seed, so many times another; layers lie around that."""

    def make(folder: Path, values: Values) -> None:
        about = {"model": MODEL, "task": TASK, "weight_type": "q", "r": 4}
        numbers = {"norm_delta_w": 5.0, "projection_delta_w": 5.0, "projection_w": 5.0, "projection_random": 5.0}
        rows = [
            about
            | numbers
            | {"run_id": f"run{seed}", "seed": seed, "layer": layer, column: numbers[over] * value * shift}
            for seed, value in enumerate(values)
            for layer, shift in enumerate((0.5, 1, 2))
        ]
        write(folder, "amplification/amplification.csv", rows)

    return make


def small_rank_amplifies(column: str) -> Maker:
    """One column is so many times larger at the smallest rank than at the largest; another rank must not be read."""

    def make(folder: Path, values: Values) -> None:
        about = {"model": MODEL, "task": TASK, "weight_type": "q", "layer": 0}
        numbers = {"norm_delta_w": 3, "projection_delta_w": 2, "projection_w": 9, "projection_random": 1}
        rows = [
            about | numbers | {"run_id": f"run{seed}{r}", "seed": seed, "r": r, column: factor}
            for seed, value in enumerate(values)
            for r, factor in ((4, 10 * value), (8, 99), (64, 10))
        ]
        write(folder, "amplification/amplification.csv", rows)

    return make


def not_top_of_w(folder: Path, values: Values) -> None:
    """Rows of another rank, side or place in W must not be read."""
    about = {"model": MODEL, "task": TASK, "weight_type": "q", "side": "delta_w_right", "r": 4, "j": 4, "top": True}
    others = ({"r": 8, "j": 8}, {"j": 1}, {"top": False}, {"side": "delta_w_left"})
    rows = []
    for (seed, value), (layer, shift) in itertools.product(enumerate(values), enumerate((-0.02, 0.02))):
        where = {"run_id": f"run{seed}", "seed": seed, "layer": layer}
        rows.append(about | where | {"phi": value + shift})
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


def q_higher_rank(folder: Path, values: Values) -> None:
    """Layers lie around the mean; the update of rank 1 must not be read."""
    rows = [
        {"seed": seed, "layer": layer, "weight_type": weight_type, "effective_rank": 5 + shift + gain}
        for seed, value in enumerate(values)
        for weight_type, gain in (("q", value), ("v", 0), ("k", 9))
        for layer, shift in enumerate((-1, 0, 1))
    ]
    one = [row | {"r": 1, "method": "r=1", "effective_rank": 1} for row in rows]
    update_ranks([*rows, *one], folder)


def intruders(folder: Path, values: Values) -> None:
    """On one side there are twice as many as on the other; more at another epsilon."""
    rows = []
    for seed, value in enumerate(values):
        counts = {"intruders_right_0.5": 4 + 4 * value / 3, "intruders_left_0.5": 4 + 2 * value / 3}
        rows.append({"seed": seed} | counts | {"intruders_right_0.6": 9})
        rows.append({"seed": seed, "label": "full", "method": "full", "r": ""} | dict.fromkeys(counts, 4))
    update_ranks(rows, folder)


def shares_with_full(folder: Path, values: Values) -> None:
    """Two layers; the entries of other k, sides and methods must not be read."""
    about = {"side": "right", "k": 8, "chance_high": 0.1}
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
    """From 0.5 without the update to 0.9 with the whole of it; other splits, metrics and methods must not be read."""
    about = {"model": MODEL, "task": TASK, "method": "full", "split": "test", "metric": "accuracy"}
    others = ({"split": "validation"}, {"metric": "loss"}, {"method": "lora"}, {"split": "update", "metric": "energy"})
    rows = []
    for seed, value in enumerate(values):
        for k, score in ((384, 0.9), (0, 0.5), (8, 0.5 + 0.4 * value), (64, 0.7)):
            own = about | {"run_id": f"run{seed}", "seed": seed, "k": k, "value": score}
            rows += [own | {"value": 0.3} | other for other in others] + [own]
    write(folder, "truncation/truncation.csv", rows)
