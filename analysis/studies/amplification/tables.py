"""What the amplification study's rows come to: over layers, by rank, and as Table 7 beside the paper's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import tables
from analysis.kit.phi_figures import middle
from analysis.maths import statistics

GROUP = ["model", "task", "weight_type"]
PAPER = "paper, GPT-3"
# What is averaged over layers, as ratios: name -> numerator, denominator.
RATIOS = {
    "factor": ("norm_delta_w", "projection_delta_w"),
    "over_random": ("projection_delta_w", "projection_random"),
    "of_top": ("projection_delta_w", "projection_w"),
    "random_factor": ("norm_delta_w", "projection_random"),
}


def logs(rows: pd.DataFrame, ratio: str) -> pd.Series:
    """The logarithm of one of RATIOS, a number a row."""
    numerator, denominator = RATIOS[ratio]
    return pd.Series(np.log(rows[numerator] / rows[denominator]), index=rows.index, name="value")


def by_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """For each of GROUP and r: seeds, layers; for each of RATIOS its geometric mean over layers and seeds, the ends of
    the interval over seeds (_low, _high; NaN for one seed), and the smallest and largest of the layers' (_min, _max);
    and in how many of the (layer, seed) pairs the factor is above 1 (amplified), and the projection in delta_w's
    directions above or below the interval of random ones (above_random, below_random)."""
    keys = [*GROUP, "r"]
    counted = rows.assign(
        pairs=1,
        amplified=rows["amplification"] > 1,
        above_random=rows["projection_delta_w"] > rows["projection_random_high"],
        below_random=rows["projection_delta_w"] < rows["projection_random_low"],
    )
    counts = {"pairs": "sum", "amplified": "sum", "above_random": "sum", "below_random": "sum"}
    table = counted.groupby(keys, sort=False).agg({"seed": "nunique", "layer": "nunique"} | counts)
    table = table.rename(columns={"seed": "seeds", "layer": "layers"}).reset_index()
    for ratio in RATIOS:
        named = rows[[*keys, "seed", "layer"]].assign(value=logs(rows, ratio))
        means = tables.summarise(named.groupby([*keys, "seed"], sort=False)["value"].mean().reset_index(), keys)
        layers = named.groupby([*keys, "layer"], sort=False)["value"].mean().groupby(keys, sort=False)
        ends = pd.DataFrame({"_min": layers.min(), "_max": layers.max()}).reset_index()
        found = means.merge(ends, on=keys)
        table = table.merge(found[keys], on=keys)
        table[ratio] = np.exp(found["mean"])
        table[f"{ratio}_low"] = np.exp(found["mean"] - found["interval"])
        table[f"{ratio}_high"] = np.exp(found["mean"] + found["interval"])
        table[f"{ratio}_min"], table[f"{ratio}_max"] = np.exp(found["_min"]), np.exp(found["_max"])
    table = table.sort_values("r", kind="stable")
    return pd.concat([group for _, group in table.groupby(GROUP, sort=False)], ignore_index=True)


def compare_ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """The factor at the smallest rank over that at the largest, for each of GROUP: small, large, the fields of
    `statistics.Paired` of the logarithms' means over layers, p_holm, and layers_larger of layers; random is the same
    difference for random directions in place of delta_w's, its norm being what it is."""
    found: list[dict[str, Any]] = []
    values = {"value": logs(rows, "factor"), "random": logs(rows, "random_factor")}
    for key, group in rows.assign(**values).groupby(GROUP, sort=False):
        small, large = (group[group["r"] == r] for r in (group["r"].min(), group["r"].max()))
        if small["r"].iloc[0] == large["r"].iloc[0]:
            continue
        by_seed, by_layer = (
            [part.groupby(column, sort=False)["value"].mean() for part in (small, large)]
            for column in ("seed", "layer")
        )
        found.append(
            dict(zip(GROUP, key, strict=True))
            | {"small": int(small["r"].iloc[0]), "large": int(large["r"].iloc[0])}
            | statistics.paired(*by_seed)._asdict()
            | {"layers_larger": int((by_layer[0] > by_layer[1]).sum()), "layers": len(by_layer[0])}
            | {"random": float(small["random"].mean() - large["random"].mean())}
        )
    columns = [*GROUP, "small", "large", *statistics.Paired._fields, "layers_larger", "layers", "random"]
    tests = pd.DataFrame(found, columns=columns)
    return tests.assign(p_holm=statistics.holm(tests["p"]))


def verdict(rows: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """What the numbers say, as markdown list items."""
    table = by_rank(rows)
    n, above, below, amplified = (
        int(table[name].sum()) for name in ("pairs", "above_random", "below_random", "amplified")
    )
    shares = table["of_top"]
    lines = [
        f"- The amplification factor is above 1 in {amplified} of {n} updates (a layer, weight type, rank and run); "
        f"its means over layers lie between {table['factor'].min():.3g} and {table['factor'].max():.3g}.",
        f"- W in the directions of delta_w is larger than in 95% of random directions in {above} of {n} updates, and "
        f"smaller in {below} ({0.025 * n:.2g} each expected by chance): on average {_span(table['over_random'])} times "
        f"the random mean, and {_span(100 * shares)}% of what W's own top r directions hold.",
    ]
    decided = tests["p_holm"] < 0.05
    larger, smaller = (int((decided & (sign * tests["difference"] > 0)).sum()) for sign in (1, -1))
    if len(tests):
        lines += [
            f"- The factor is larger at the smallest rank than at the largest in {larger} of {len(tests)} comparisons, "
            f"smaller in {smaller}; the others are not decided (p of 0.05, after correction):",
            *map(_comparison, tests.to_dict("records")),
        ]
    return lines


def _span(values: pd.Series) -> str:
    return f"{values.min():.2g} to {values.max():.2g}"


def _comparison(test: Mapping[Any, Any]) -> str:
    text = f"{np.exp(test['difference']):.3g} times"
    if pd.isna(test["p"]):
        text += " (1 seed: no test)" if test["pairs"] == 1 else f" ({statistics.pairs_text(test['pairs'])}: no test)"
    else:
        ends = (np.exp(test["difference"] + sign * test["interval"]) for sign in (-1, 1))
        p = "< 0.001" if test["p_holm"] < 0.001 else f"{test['p_holm']:.3f}"
        star = " *" if test["p_holm"] < 0.05 else ""
        text += " [{:.3g}, {:.3g}]".format(*ends) + f" ({statistics.pairs_text(test['pairs'])}, p {p}{star})"
    return (
        f"  - {test['weight_type']}, {test['task']} ({test['model']}): r = {test['small']} has {text} the factor of "
        f"r = {test['large']}, and a larger one in {test['layers_larger']} of {test['layers']} layers. Random "
        f"directions would have {np.exp(test['random']):.3g} times."
    )


def layout(rows: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Table 7 for reading: for each place, weight type and rank the middle layer, means over seeds; then the paper's
    rows."""
    names = {
        "projection_delta_w": "U, V of delta_w", "projection_w": "of W", "projection_random": "random",
        "norm_w": "norm of W", "norm_delta_w": "norm of delta_w",
    }  # fmt: skip
    theirs = paper.rename(
        columns={f"projection_norm_{name}": f"projection_{name}" for name in ("delta_w", "w", "random")}
    )
    factors = (theirs["norm_delta_w"] / theirs["projection_delta_w"]).map("{:.3g}".format)
    parts = []
    for (model, task, weight_type), group in rows.groupby(GROUP, sort=False):
        layer = middle(list(dict.fromkeys(group["layer"])))
        chosen = group[group["layer"] == layer]
        means = chosen.groupby("r", sort=True)[list(names)].mean().reset_index()
        cells = tables.summarise(chosen.assign(value=logs(chosen, "factor")), ["r"]).sort_values("r")
        means["factor"] = [_factor_text(*row) for row in cells[["mean", "interval", "n"]].itertuples(index=False)]
        parts.append(means.assign(source=f"ours, {model}", task=str(task), weights=str(weight_type), layer=layer))
    parts.append(theirs.assign(source=PAPER, task=None, weights="q", layer="48", factor=factors))
    table = pd.concat(parts, ignore_index=True)
    for name in names:
        table[name] = table[name].map("{:.3g}".format)
    order = ["source", "task", "weights", "layer", "r", *names, "factor"]
    return table[order].rename(columns=names).astype({"r": str})


def _factor_text(mean: float, interval: float, n: float) -> str:
    """A factor and its interval, both given as logarithms, and (n)."""
    text = f"{np.exp(mean):.3g}"
    text += "" if pd.isna(interval) else f" [{np.exp(mean - interval):.3g}, {np.exp(mean + interval):.3g}]"
    return f"{text} ({n:.0f})"


def over_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_rank` of one place, for reading: mean [interval over seeds], and the range of the layers'."""
    shown: dict[str, Any] = {"weights": table["weight_type"], "r": table["r"].astype(str)}
    heads = {"factor": "factor", "over_random": "times the random mean", "of_top": "share of W's top r"}
    for ratio, head in heads.items():
        shown[head] = [_mean_text(row, ratio) for row in table.to_dict("records")]
        shown[f"{head}, layers"] = [
            f"{row[f'{ratio}_min']:.3g} to {row[f'{ratio}_max']:.3g}" for row in table.to_dict("records")
        ]
    shown["above random"] = table["above_random"].astype(str) + " of " + table["pairs"].astype(str)
    return pd.DataFrame(shown)


def _mean_text(row: Mapping[Any, Any], ratio: str) -> str:
    text = f"{row[ratio]:.3g}"
    low, high = row[f"{ratio}_low"], row[f"{ratio}_high"]
    return text if pd.isna(low) else f"{text} [{low:.3g}, {high:.3g}]"
