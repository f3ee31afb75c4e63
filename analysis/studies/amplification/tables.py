"""What the amplification study's rows come to: over layers, by rank, and as Table 7 beside the paper's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import cells, phi, updates
from analysis.kit.sentences import told
from analysis.maths import statistics

GROUP = ["model", "task", "weight_type"]
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
    rows = rows.assign(**{ratio: logs(rows, ratio) for ratio in RATIOS})

    def counts(own: pd.DataFrame) -> dict[str, Any]:
        projection = own["projection_delta_w"]
        found: dict[str, Any] = {
            "seeds": own["seed"].nunique(), "layers": own["layer"].nunique(), "pairs": len(own),
            "amplified": int((own["amplification"] > 1).sum()),
            "above_random": int((projection > own["projection_random_high"]).sum()),
            "below_random": int((projection < own["projection_random_low"]).sum()),
        }  # fmt: skip
        means, layers = updates.means(own, ["r"], [*RATIOS]).iloc[0], own.groupby("layer")[[*RATIOS]].mean()
        for ratio in RATIOS:
            mean, half = means[ratio], means[f"{ratio}_interval"]
            ends = {"": mean, "_low": mean - half, "_high": mean + half}
            ends |= {"_min": layers[ratio].min(), "_max": layers[ratio].max()}
            found |= {f"{ratio}{end}": np.exp(value) for end, value in ends.items()}
        return found

    table = cells.each(rows, keys, counts).sort_values("r", kind="stable")
    return pd.concat([group for _, group in table.groupby(GROUP, sort=False)], ignore_index=True)


def compare_ranks(rows: pd.DataFrame) -> pd.DataFrame:
    """The factor at the smallest rank over that at the largest, for each of GROUP: small, large, the fields of
    `statistics.Paired` of the logarithms' means over layers, p_holm, and layers_larger of layers; random is the same
    difference for random directions in place of delta_w's, its norm being what it is."""
    rows = rows.assign(value=logs(rows, "factor"), random=logs(rows, "random_factor"))

    def test(own: pd.DataFrame) -> dict[str, Any] | None:
        ends = int(own["r"].min()), int(own["r"].max())
        parts = [own[own["r"] == r] for r in ends]
        seeds, layers = ([part.groupby(by, sort=False)["value"].mean() for part in parts] for by in ("seed", "layer"))
        random = parts[0]["random"].mean() - parts[1]["random"].mean()
        about = {"layers_larger": int((layers[0] > layers[1]).sum()), "layers": len(layers[0]), "random": random}
        found = {"small": ends[0], "large": ends[1]} | statistics.paired(*seeds)._asdict() | about
        return found if ends[0] < ends[1] else None

    tests = cells.each(rows, GROUP, test)
    return tests.assign(p_holm=statistics.holm(tests["p"])) if len(tests) else tests


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
    if len(tests):
        larger, smaller, _ = map(len, told(tests))
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


def layout(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 7 for reading: for each place, weight type and rank the middle layer, means over seeds; then the paper's
    rows, of W_q of layer 48 of GPT-3."""
    names = {
        "projection_delta_w": "U, V of delta_w", "projection_w": "of W", "projection_random": "random",
        "norm_w": "norm of W", "norm_delta_w": "norm of delta_w",
    }  # fmt: skip
    middles = rows.groupby(GROUP, sort=False)["layer"].transform(lambda layers: phi.middle(list(dict.fromkeys(layers))))
    chosen = rows[rows["layer"] == middles].assign(factor=logs(rows, "factor")).sort_values("r", kind="stable")
    groups = (chosen[(chosen[GROUP] == list(key)).all(axis=1)] for key, _ in rows.groupby(GROUP, sort=False))
    ours = pd.concat([updates.means(own, [*GROUP, "layer", "r"], [*names, "factor"]) for own in groups])
    ours = ours.assign(source="ours, " + ours["model"], factor=[_factor_text(row) for row in ours.to_dict("records")])
    theirs = cells.paper("table07_amplification")
    theirs = theirs.rename(columns=lambda name: name.replace("projection_norm", "projection"))
    factors = (theirs["norm_delta_w"] / theirs["projection_delta_w"]).map("{:.3g}".format)
    theirs = theirs.assign(source="paper, GPT-3", task=None, weight_type="q", layer="48", factor=factors)
    columns = ["source", "task", "weight_type", "layer", "r", *names, "factor"]
    table = pd.concat([ours[columns], theirs[columns]], ignore_index=True)
    table[list(names)] = table[list(names)].map("{:.3g}".format)
    return table.rename(columns=names | {"weight_type": "weights"}).astype({"r": str})


def _factor_text(row: Mapping[Any, Any]) -> str:
    """A factor and its interval, both given as logarithms, and (n)."""
    mean, half = row["factor"], row["factor_interval"]
    ends = "" if pd.isna(half) else f" [{np.exp(mean - half):.3g}, {np.exp(mean + half):.3g}]"
    return f"{np.exp(mean):.3g}{ends} ({row['seeds']})"


def over_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `by_rank` of one place, for reading: mean [interval over seeds], and the range of the layers'."""
    shown: dict[str, Any] = {"weights": table["weight_type"], "r": table["r"].astype(str)}
    heads = {"factor": "factor", "over_random": "times the random mean", "of_top": "share of W's top r"}
    for ratio, head in heads.items():
        means, low, high, least, most = (table[f"{ratio}{end}"] for end in ("", "_low", "_high", "_min", "_max"))
        shown[head] = [
            f"{mean:.3g}" + ("" if pd.isna(a) else f" [{a:.3g}, {b:.3g}]")
            for mean, a, b in zip(means, low, high, strict=True)
        ]
        shown[f"{head}, layers"] = [f"{a:.3g} to {b:.3g}" for a, b in zip(least, most, strict=True)]
    shown["above random"] = table["above_random"].astype(str) + " of " + table["pairs"].astype(str)
    return pd.DataFrame(shown)
