"""The few entries of phi grids that tell the story: beside chance, of which some is kept, and as a verdict in words."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.kit import cells, phi
from analysis.kit.phi import SIDES
from analysis.kit.updates import PLACE
from analysis.maths.subspace import Baseline, gaussian_phi
from analysis.studies.subspace.draw import Comparison
from analysis.weights.sites import Site

PAPER_MARK = 0.5  # the paper finds phi > 0.5 for the top direction of A_r8 and A_r64 (Section 7.2)


def gaussian(baseline: Baseline, r_a: int, r_b: int) -> pd.DataFrame:
    """Rows of phi_gaussian.csv, some (i, j) each: dim, r_a, r_b, i, j, mean, low, high, draw."""
    i, j = (np.array(_doubling(size)) for size in (r_a, r_b))
    rows, columns = (index.ravel() for index in np.meshgrid(i, j, indexing="ij"))
    names = ("mean", "low", "high", "draw")
    values = {name: grid[rows - 1, columns - 1] for name, grid in zip(names, baseline[1:], strict=True)}
    return pd.DataFrame({"dim": baseline.dim, "r_a": r_a, "r_b": r_b, "i": rows, "j": columns} | values)


def baseline(rows: pd.DataFrame, dim: int, r_a: int, r_b: int) -> Baseline:
    """The baseline of rows of `gaussian`: of mean, low and high what is between the (i, j) there is
    `kit.phi.between`; the draw is drawn again."""
    own = rows[(rows[["dim", "r_a", "r_b"]] == [dim, r_a, r_b]).all(axis=1)]
    i, j = (sorted(own[name].unique()) for name in ("i", "j"))
    mean, low, high = (
        phi.between(own.pivot_table(name, "i", "j").to_numpy(), i, j) for name in ("mean", "low", "high")
    )
    return Baseline(dim, mean, low, high, gaussian_phi(r_a, r_b, dim, np.random.default_rng(0)))


def _doubling(size: int) -> list[int]:
    """1 to 8, 16, 32, … and the last."""
    first = phi.ALL
    doubled = [first * 2**n for n in range(1, size.bit_length()) if first * 2**n < size]
    return sorted({*range(1, min(first, size) + 1), *doubled, size})


def tabulate(comparison: Comparison, entries: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """phi at some (i, j) for every side and site, with the mean and the 95% interval of the Gaussian baseline there.

    above_chance: phi is above that interval, as it is once in 40 times by chance.
    """
    sites = [Site(layer, weight_type) for weight_type in comparison.weight_types for layer in comparison.layers]
    rows = []
    for side, site in ((side, site) for side in SIDES for site in sites if (side, site) in comparison.grids):
        grid, chance = comparison.grids[side, site], comparison.baselines[side, site]
        for i, j in entries:
            at = (i - 1, j - 1)
            rows.append(dict(zip(PLACE, comparison.place, strict=True)) | {
                "comparison": comparison.name, "side": side, "weight_type": site.weight_type,
                "layer": site.layer, "i": i, "j": j, "phi": grid[at], "gaussian_mean": chance.mean[at],
                "gaussian_low": chance.low[at], "gaussian_high": chance.high[at],
                "above_chance": grid[at] > chance.high[at],
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame) -> list[str]:
    """For each weight type of a comparison, of A as in the paper: in how many layers phi is above chance, and above the
    paper's 0.5 at the top direction. Takes the rows of `tabulate`, returns markdown list items."""
    lines = []
    for weight_type, rows in table[table["side"] == "A"].groupby("weight_type", sort=False):
        top = rows[(rows["i"] == 1) & (rows["j"] == 1)]
        entries = rows.groupby(["i", "j"], sort=False)["above_chance"].sum().reset_index()
        counts = [f"phi({i}, {j}) in {count}" for i, j, count in zip(*entries.to_dict("list").values(), strict=True)]
        lines.append(
            f"- {weight_type}, {SIDES['A']}, {len(top)} layers: above chance {', '.join(counts)} "
            f"({0.025 * len(top):.2g} expected by chance); phi(1, 1) above {PAPER_MARK}, as in the paper, in "
            f"{(top['phi'] > PAPER_MARK).sum()}; its median is {top['phi'].median():.2f}."
        )
    return lines


def by_side(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `tabulate` for reading: a row for each weight type and side; for each (i, j) the median over layers,
    (smallest to largest), in how many layers it is above chance, and the Gaussian baseline, mean [interval]."""

    def texts(own: pd.DataFrame) -> dict[str, str]:
        row = {}
        for (i, j), of in own.groupby(["i", "j"], sort=False):
            values, chance = of["phi"], of.iloc[0]
            interval = f"[{chance['gaussian_low']:.3f}, {chance['gaussian_high']:.3f}]"
            row[f"phi({i}, {j})"] = f"{values.median():.3f} ({values.min():.3f} to {values.max():.3f})"
            row[f"({i}, {j}) above chance"] = f"{of['above_chance'].sum()} of {len(of)}"
            row[f"({i}, {j}) by chance"] = f"{chance['gaussian_mean']:.3f} {interval}"
        return row

    found = cells.each(table, ["weight_type", "side"], texts)
    return found.rename(columns={"weight_type": "weights", "side": "directions"})


def by_site(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `tabulate` of A and B for reading: a row for each site, a column for each side and (i, j), `*` above
    chance."""
    rows = table[table["side"].isin(["A", "B"])]
    marks = rows["above_chance"].map({True: "*", False: ""})
    rows = rows.assign(
        text=rows["phi"].map("{:.3f}".format) + marks,
        head=[f"{side} ({i}, {j})" for side, i, j in zip(rows["side"], rows["i"], rows["j"], strict=True)],
    )
    found = cells.each(rows, ["weight_type", "layer"], lambda own: dict(zip(own["head"], own["text"], strict=True)))
    return found.rename(columns={"weight_type": "weights"})
