"""What the spectrum study says on its page: its tables for reading, and what is established, in words."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from analysis.kit import cells, updates
from analysis.kit.data import Data
from analysis.kit.sentences import told
from analysis.kit.updates import ENDS, EPSILON, EPSILONS, FEW, PAIR, PLACE, SIDES, TOP, place_name
from analysis.maths import statistics
from analysis.maths.statistics import difference_text

RANKS = {
    "stable_rank": "stable rank", "effective_rank": "effective rank", "rank_50": "k for 50% of the energy",
    "rank_90": "90%", "rank_99": "99%",
}  # fmt: skip


def ranks_table(data: Data) -> pd.DataFrame:
    """`summary` for reading."""
    table = data["table.csv"]
    shown = table[[*PLACE, "method"]].assign(weights=table["weight_type"])
    shown["norm, % of W's"] = (100 * table["relative_norm"]).map("{:.3g}".format)
    return shown.assign(**{head: updates.mean_texts(table, name) for name, head in RANKS.items()})


def rank_tests(ranks: pd.DataFrame) -> pd.DataFrame:
    """The effective rank of q's update less that of v's: for each place and method that has both and more than one
    direction, the fields of `statistics.Paired` over seeds, p_holm, and layers_larger of layers."""

    def test(own: pd.DataFrame) -> dict[str, Any] | None:
        of = [own[own["weight_type"] == weight_type] for weight_type in PAIR]
        if any(part.empty for part in of):
            return None
        seeds, layers = ([part.groupby(by)["effective_rank"].mean() for part in of] for by in ("seed", "layer"))
        counts = {"layers_larger": int((layers[0] > layers[1]).sum()), "layers": len(layers[0])}
        return statistics.paired(*seeds)._asdict() | counts

    found = cells.each(ranks[ranks["r"] != 1], [*PLACE, "method"], test)
    return found.assign(p_holm=statistics.holm(found["p"])) if len(found) else found


def intruder_counts(ranks: pd.DataFrame) -> pd.DataFrame:
    """PLACE, method, seed, epsilon, and intruders and random: of the TOP singular vectors of W + delta_w on either side
    how many are intruders, and how many with an update of random directions; means over the weight types that all
    methods of the place have, layers and sides."""
    parts = []
    for key, own in ranks.groupby(PLACE, sort=False):
        shared = set.intersection(*(set(group) for _, group in own.groupby("method")["weight_type"]))
        of = own[own["weight_type"].isin(shared)]
        for epsilon in EPSILONS:
            names = ("intruders", "random")
            values = {name: of[[f"{name}_{side}_{epsilon}" for side in SIDES]].mean(axis=1) for name in names}
            means = of.assign(**values).groupby(["method", "seed"], sort=False)[list(names)].mean().reset_index()
            parts.append(means.assign(epsilon=epsilon, model=str(key[0]), task=str(key[1])))
    return pd.concat(parts, ignore_index=True)


def counted(data: Data) -> pd.DataFrame:
    """`intruder_counts` of the study."""
    return intruder_counts(data["ranks.csv"])


def intruders_table(data: Data) -> pd.DataFrame:
    """For reading: a row a place and method, for each epsilon the mean, and that of random directions."""
    counts = data.once(counted).assign(layer=0)

    def texts(own: pd.DataFrame) -> dict[str, str]:
        shown = {}
        for epsilon, of in own.groupby("epsilon"):
            for name, more in (("intruders", ""), ("random", ": random directions")):
                (shown[f"below {epsilon:g}{more}"],) = updates.mean_texts(
                    updates.means(of, ["epsilon"], [name]), name, 1, 2
                )
        return shown

    return cells.each(counts, [*PLACE, "method"], texts)


def overlap_table(data: Data) -> pd.DataFrame:
    """For reading, of q and v or all there are: a row a place, side, weight type and method; for each k the mean phi,
    chance, and in how many of the (layer, seed) pairs it is above."""
    rows = updates.usual_types(data["overlap.csv"]).replace({"side": ENDS, "method": {"full": "full, another seed"}})

    def texts(own: pd.DataFrame) -> dict[str, str]:
        row = {}
        for k, of in own[own["k"].isin((1, FEW))].groupby("k"):
            mean, high = of["chance_mean"].mean(), of["chance_high"].mean()
            row[f"phi({k}, {k})"] = f"{of['phi'].mean():.3f}"
            row[f"({k}, {k}) by chance"] = f"{mean:.3f}, 95% below {high:.3f}"
            row[f"({k}, {k}) above chance"] = f"{(of['phi'] > of['chance_high']).sum()} of {len(of)}"
        return row

    found = cells.each(rows, [*PLACE, "side", "weight_type", "method"], texts)
    return found.rename(columns={"side": "directions", "weight_type": "weights"})


def angles_table(data: Data) -> pd.DataFrame:
    """For reading: a row a place, side and method; the smallest principal angle and the share of directions between two
    seeds, medians over sites and pairs, beside chance."""

    def texts(own: pd.DataFrame) -> dict[str, str]:
        low, high = own["chance_smallest_low"], own["chance_shared_high"]
        return {
            "smallest angle": f"{own['smallest'].median():.0f}°",
            "by chance": f"{own['chance_smallest'].mean():.0f}°, 95% above {low.mean():.0f}°",
            "below chance": f"{(own['smallest'] < low).sum()} of {len(own)}",
            "mean squared cosine": f"{own['shared'].median():.3f}",
            "of random ones": f"{own['chance_shared'].mean():.3f}, 95% below {high.mean():.3f}",
        }

    rows = data["angles.csv"].replace({"side": ENDS})
    return cells.each(rows, [*PLACE, "side", "method", "k"], texts).rename(columns={"side": "directions"})


def findings(data: Data) -> list[str]:
    """What the numbers say, with tests, as markdown list items."""
    overlap, angles = data["overlap.csv"], data["angles.csv"]
    lines = rank_lines(data["ranks.csv"])
    lines += [_intruders(key, own) for key, own in data.once(counted).query("epsilon == @EPSILON").groupby(PLACE)]
    lines += [_overlap(key, own) for key, own in overlap[overlap["k"] == 1].groupby(PLACE, sort=False)]
    for key, own in angles.groupby(PLACE, sort=False):
        below = int((own["smallest"] < own["chance_smallest_low"]).sum())
        lines.append(
            f"- Two seeds, on {place_name(key)}: the smallest angle between their top directions is below chance in "
            f"{below} of {len(own)} cases (2.5% by chance)."
        )
    return lines


def rank_lines(ranks: pd.DataFrame) -> list[str]:
    """Whether q's update has a higher rank than v's."""
    tests = rank_tests(ranks)
    if tests.empty:
        return []
    found = told(tests)
    lines = [
        f"- The paper infers a higher intrinsic rank of {PAIR[0]}'s update than of {PAIR[1]}'s, from the directions "
        f"that two seeds share. The effective rank is higher in {len(found.better)} of {len(tests)} comparisons (a "
        f"method on a model and task), lower in {len(found.worse)}; the others are not decided."
    ]
    for key, own in tests.groupby(PLACE, sort=False):
        mine = ranks[(ranks[PLACE] == list(key)).all(axis=1) & (ranks["label"] == "lora")]
        largest = mine[~mine["method"].str.contains("types")].sort_values("r", kind="stable")["method"].tail(1)
        texts = [
            f"{test['method']}: {difference_text(test['difference'], test['interval'], test['p_holm'], 1)}, "
            f"higher in {test['layers_larger']} of {test['layers']} layers"
            for test in own[own["method"].isin(["full", *largest])].to_dict("records")
        ]
        lines += [f"  - {place_name(key)}: {PAIR[0]} minus {PAIR[1]}, {'; '.join(texts)}."] if texts else []
    return lines


def _intruders(key: tuple[Hashable, ...], counts: pd.DataFrame) -> str:
    means = counts.groupby("method", sort=False)[["intruders", "random"]].mean()
    texts = [f"{method} {row['intruders']:.2f} ({row['random']:.2f})" for method, row in means.iterrows()]
    tests = updates.against_full(counts, "intruders")
    more, fewer, _ = (list(rows["method"]) for rows in told(tests))
    undecided = len(tests) - len(more) - len(fewer)
    line = (
        f"- Intruders (best |cosine| below {EPSILON}) among {TOP}, and with random directions in brackets, on "
        f"{place_name(key)}: {', '.join(texts)}."
    )
    line += f" More than full fine-tuning: {', '.join(more)}." if more else ""
    line += f" Fewer than full fine-tuning: {', '.join(fewer)}." if fewer else ""
    return line + (f" Not told from full fine-tuning: {undecided} of {len(tests)} methods." if undecided else "")


def _overlap(key: tuple[Hashable, ...], rows: pd.DataFrame) -> str:
    full = rows["label"] == "full"
    parts = [
        f"{name} shares it above chance in {(of['phi'] > of['chance_high']).sum()} of {len(of)} cases, "
        f"median phi(1, 1) {of['phi'].median():.2f}"
        for name, of in (("LoRA", rows[~full]), ("full, of another seed,", rows[full]))
        if len(of)
    ]
    return (
        f"- The top direction of the full update, on {place_name(key)}: {'; '.join(parts)}; by chance "
        f"{rows['chance_mean'].median():.3f}. A case is a run, layer, weight type and side."
    )
